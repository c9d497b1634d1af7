"""Latency figures of a run: exact quantiles over its records, whole and by cause of the cache hit.

TTFT, TPOT and E2E are defined in `record.py`; ITL is every gap between tokens, pooled. Quantiles
are nearest rank: the smallest observed value that at least the share q of all values does not
exceed. So each one is a value that really occurred, and p99 of fewer than 100 values is the
maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loadkit.core.split import Split
from loadkit.runs.record import Record

METHOD = "nearest rank over all answered requests (exact, no histogram)"
# As a reader sees them: both kinds of replay together.
CAUSES = ("replay", "continuation", "shared", "miss")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def summarize(values: Iterable[float | None]) -> dict[str, Any]:
    """n, mean, p50, p90, p99, max of the values that are known; all None but n without any."""
    known = np.asarray([v for v in values if v is not None], dtype=np.float64)
    if known.size == 0:
        return {"n": 0, "mean": None, **dict.fromkeys(QUANTILES), "max": None}
    at = np.quantile(known, list(QUANTILES.values()), method="inverted_cdf")
    quantiles = dict(zip(QUANTILES, (float(v) for v in at), strict=True))
    return {
        "n": int(known.size),
        "mean": float(known.mean()),
        **quantiles,
        "max": float(known.max()),
    }


def main_cause(split: Split | None) -> str | None:
    """Which colour a request wears: its largest hit cause, `miss` when less than half is cached.

    None without a split. A tie goes to the cause named first in CAUSES.
    """
    if split is None:
        return None
    if 2 * split.hit < split.prompt_tokens or split.hit == 0:
        return "miss"
    return max(CAUSES[:3], key=lambda cause: int(getattr(split, cause)))


def latency(answered: Sequence[Record], splits: Sequence[Split | None]) -> dict[str, Any]:
    """The `latency` section of run.json. `splits` runs parallel to `answered` (ok records)."""
    return {
        "method": METHOD,
        "ttft_s": summarize(r.ttft_s for r in answered),
        "tpot_s": summarize(r.tpot_s for r in answered),
        "itl_s": summarize(gap for r in answered for gap in r.gaps_s),
        "e2e_s": summarize(r.e2e_s for r in answered),
        "ttft_s_by_cause": _ttft_by_cause(answered, splits),
    }


def _ttft_by_cause(answered: Sequence[Record], splits: Sequence[Split | None]) -> dict[str, Any]:
    causes = [main_cause(split) for split in splits]
    return {
        cause: summarize(r.ttft_s for r, c in zip(answered, causes, strict=True) if c == cause)
        for cause in CAUSES
    }
