"""Direct simulation of caches that one exact pass cannot answer: policies, TTLs, tiers, slots, time."""
