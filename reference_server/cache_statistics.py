"""What is in the cache now, and what came of it since the start."""

from __future__ import annotations

from typing import Any

from reference_server.engine import Engine
from reference_server.metrics import CAUSES, Metrics
from reference_server.node import TIER_NAMES


def cache_statistics(engine: Engine, metrics: Metrics) -> dict[str, Any]:
    """Blocks now; tokens since the start (a reset of the cache keeps them). hit_rate None: no
    prompt was looked up yet; diversity_index None: no request yet."""
    settings, pool = engine.settings, engine.tree.pool
    tokens = {cause: metrics.total("loadkit:prefix_cache_tokens", cause=cause) for cause in CAUSES}
    queries = metrics.total("vllm:prefix_cache_queries")
    hits = metrics.total("vllm:prefix_cache_hits")
    return {
        "policy": settings.policy,
        "block_size": settings.block_size,
        "device": {
            "capacity": pool.num_blocks,
            "resident": pool.num_resident,
            "dead": pool.num_dead,
            "reserved": pool.num_reserved,
            "in_use": pool.num_used,
        },
        "lower_tiers": {
            TIER_NAMES[tier.level]: {"capacity": tier.capacity, "resident": len(tier.entries)}
            for tier in engine.tree.lower.tiers
        },
        "tenants": engine.tree.pool.quotas.num_tenants,
        "tenant_quota": settings.tenant_quota_blocks,
        "diversity_index": engine.diversity.value,
        "prompt_tokens": queries,
        "cached_tokens": hits,
        "hit_rate": hits / queries if queries else None,
        "tokens": tokens,
        "last_event": engine.tree.events.last_number,
    }
