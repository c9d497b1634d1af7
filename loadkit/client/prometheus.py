"""Prefix-cache counters out of a server's /metrics, in the dialects of the engines.

Counters only: take one reading before and one after a run and subtract. Names come with or without
`_total`; several engines of one server are summed. SGLang's hit-rate gauge is never used.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from prometheus_client.parser import text_string_to_metric_families


class PrefixCounters(msgspec.Struct, frozen=True):
    """Prefix-cache counters of a server at one moment, in tokens, summed over engines.

    queries: prompt tokens looked up. hits: prompt tokens found. source: metric family's dialect
    ("vllm", "sglang", "llamacpp"). by_cause: loadkit:prefix_cache_tokens_total, empty elsewhere.
    started_unix_s: process_start_time_seconds, added up over processes; None where not shown. Two
    readings that differ in it are of two servers, or of one that was started again.
    """

    source: str
    queries: float
    hits: float
    by_cause: dict[str, float] = {}
    started_unix_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Dialect:
    """Which counters add up to looked-up and to found tokens."""

    source: str
    queries: tuple[str, ...]
    hits: tuple[str, ...]


DIALECTS = (
    # Tokens that only the external store had were missed locally, so they add to hits alone.
    _Dialect(
        "vllm",
        ("vllm:prefix_cache_queries",),
        ("vllm:prefix_cache_hits", "vllm:external_prefix_cache_hits"),
    ),
    _Dialect("sglang", ("sglang:prompt_tokens",), ("sglang:cached_tokens",)),
    # llama.cpp's prompt_tokens counts only the tokens that were NOT cached.
    _Dialect(
        "llamacpp",
        ("llamacpp:prompt_tokens", "llamacpp:prompt_tokens_cached"),
        ("llamacpp:prompt_tokens_cached",),
    ),
)
_STARTED = "process_start_time_seconds"
_BY_CAUSE = "loadkit:prefix_cache_tokens"


def parse_prefix_counters(text: str) -> PrefixCounters | None:
    """Counters of the first dialect found; None when the text has none or is no metrics page."""
    try:
        totals, by_cause = _totals(text)
    except ValueError:
        return None
    for dialect in DIALECTS:
        required = (*dialect.queries, dialect.hits[0])
        if all(name in totals for name in required):
            return PrefixCounters(
                dialect.source,
                sum(totals[name] for name in dialect.queries),
                sum(totals.get(name, 0.0) for name in dialect.hits),
                by_cause,
                totals.get(_STARTED),
            )
    return None


def _totals(text: str) -> tuple[Mapping[str, float], dict[str, float]]:
    totals: dict[str, float] = defaultdict(float)
    by_cause: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")
            if not math.isfinite(sample.value):
                continue  # a counter is a number
            totals[name] += sample.value
            if name == _BY_CAUSE and "cause" in sample.labels:
                by_cause[sample.labels["cause"]] += sample.value
    return dict(totals), dict(by_cause)
