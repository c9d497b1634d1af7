"""How many different prompts a log really has."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.core.trace import Trace


class Diversity(msgspec.Struct, frozen=True):
    """effective_prompts is exp(Shannon entropy) of whole prompts: the number of equally frequent
    prompts that would be as diverse. distinct_share is distinct prompts / requests."""

    distinct_prompts: int
    distinct_share: float | None
    effective_prompts: float | None


def diversity(trace: Trace) -> Diversity:
    """Diversity of whole prompts, partial last block included; None for a log without requests."""
    counts = np.unique(trace.prompt_key, return_counts=True)[1]
    if not len(counts):
        return Diversity(0, None, None)
    share = counts / counts.sum()
    entropy = float(-np.sum(share * np.log(share)))
    return Diversity(len(counts), len(counts) / trace.num_requests, float(np.exp(entropy)))
