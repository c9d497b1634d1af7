"""One address in front of several engine processes, each with a cache of its own."""
