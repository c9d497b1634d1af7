"""Prefix-cache counters out of a server's /metrics, in the dialects of the engines.

Counters only: take one reading before and one after a run and subtract. Names come with or without
`_total`; several engines of one server are summed. SGLang's hit-rate gauge is never used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadkit.client.foreign import MAX_COUNT, Malformed
from loadkit.client.usage import SPLIT_NAMES


class PrefixCounters(msgspec.Struct, frozen=True):
    """Prefix-cache counters of a server at one moment, in tokens, summed over engines.

    queries: prompt tokens looked up. hits: prompt tokens found. source: metric family's dialect
    ("vllm", "sglang", "llamacpp"). by_cause: loadkit:prefix_cache_tokens_total, empty elsewhere.
    started_unix_s: process_start_time_seconds, added up over processes; None where not shown. Two
    readings that differ in it are of two servers, or of one that was started again.
    prompts: prompt tokens of requests, each counted once; None where not shown. `queries` may have
    more: vLLM before mid 2026 looks a request up again each time that it cannot be admitted.
    external_hits: of `hits`, those that a store outside the engine had.
    """

    source: str
    queries: float
    hits: float
    by_cause: dict[str, float] = {}
    started_unix_s: float | None = None
    prompts: float | None = None
    external_hits: float = 0.0


class CounterSample(msgspec.Struct, frozen=True):
    """A reading in mid-run: asked for at `asked_s`, there at `got_s`, seconds after the run's start."""

    asked_s: float
    got_s: float
    counters: PrefixCounters


@dataclass(frozen=True, slots=True)
class _Dialect:
    """Which counters add up to looked-up and to found tokens."""

    source: str
    queries: tuple[str, ...]
    hits: tuple[str, ...]
    prompts: str | None = None


DIALECTS = (
    # Tokens that only the external store had were missed locally, so they add to hits alone.
    _Dialect(
        "vllm",
        ("vllm:prefix_cache_queries",),
        ("vllm:prefix_cache_hits", "vllm:external_prefix_cache_hits"),
        "vllm:prompt_tokens",
    ),
    _Dialect("sglang", ("sglang:prompt_tokens",), ("sglang:cached_tokens",)),
    # llama.cpp's prompt_tokens counts only the tokens that were NOT cached.
    _Dialect(
        "llamacpp",
        ("llamacpp:prompt_tokens", "llamacpp:prompt_tokens_cached"),
        ("llamacpp:prompt_tokens_cached",),
    ),
)
MAX_LINE, MAX_LINES = 1 << 14, 1 << 20  # characters; an engine's cache_config_info has some 3,000
_STARTED = "process_start_time_seconds"
_BY_CAUSE = "loadkit:prefix_cache_tokens"
_COUNTED = {
    _STARTED,
    _BY_CAUSE,
    *(
        name
        for dialect in DIALECTS
        for names in astuple(dialect)
        for name in ([names] if isinstance(names, str) else names or ())
    ),
}
_NAME = re.compile(r"[A-Za-z0-9_:]*")


def parse_prefix_counters(text: str) -> PrefixCounters | None:
    """Counters of the first dialect found; None when the text has none or is no metrics page."""
    try:
        totals, by_cause = _totals(text)
    except Malformed:
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
                totals.get(dialect.prompts or ""),
                sum(totals.get(name, 0.0) for name in dialect.hits[1:]),
            )
    return None


def _totals(text: str) -> tuple[Mapping[str, float], dict[str, float]]:
    totals: dict[str, float] = defaultdict(float)
    by_cause: dict[str, float] = defaultdict(float)
    for sample in samples(text, _COUNTED):
        name = sample.name.removesuffix("_total")
        if not 0 <= sample.value < MAX_COUNT:
            continue  # a counter is a number
        totals[name] += sample.value
        if name == _BY_CAUSE and sample.labels.get("cause") in SPLIT_NAMES:
            by_cause[sample.labels["cause"]] += sample.value
    return dict(totals), dict(by_cause)


def samples(text: str, names: Iterable[str]) -> Iterator[Sample]:
    """The samples of a metrics page whose names are asked for, with `_total` or without.

    Other lines are not parsed: a page of many megabytes costs a look at each of its lines, and what is
    wrong in another family takes nothing away. Malformed: a line asked for that is none, or too much
    of them: the parser takes a time that grows with the square of a line.
    """
    num_chars = 0
    wanted = {f"{name}{end}" for name in names for end in ("", "_total")}
    for line in text.split("\n"):
        if _NAME.match(line.lstrip())[0] in wanted:  # type: ignore[index]  # it always matches
            num_chars += len(line)
            if len(line) > MAX_LINE or num_chars > MAX_LINES:
                raise Malformed("metrics longer than any engine's")
            try:
                families = list(text_string_to_metric_families(line))
            except (ValueError, IndexError) as error:
                raise Malformed(f"not a line of metrics: {error}") from error
            for family in families:
                yield from family.samples
