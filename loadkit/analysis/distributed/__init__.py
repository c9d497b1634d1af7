"""A log in shards, tokenised, hashed and sampled on a Ray cluster (extra `ray`).

`ray` is imported in `cluster.py` alone, on first use. What runs on the workers is in `shards.py` and
knows nothing of Ray.
"""

from loadkit.analysis.distributed.cluster import Distributed, Question, analyze_on_ray

__all__ = ["Distributed", "Question", "analyze_on_ray"]
