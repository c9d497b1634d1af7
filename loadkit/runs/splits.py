"""Split of each answered request's prompt tokens by cause, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import msgspec

from loadkit.core.split import Split, attribute
from loadkit.runs.prediction import Prediction, Rows, Unexplained
from loadkit.runs.record import Record

PARTS = (
    "replay_same_session",
    "replay_cross_session",
    "continuation",
    "shared",
    "miss",
    "miss_capacity",
    "miss_unexplained",
    "miss_compulsory",
)
_WHY = {
    "caching_off": "the server's prefix cache is off",
    "kept_places": "the server keeps states or windows at a few places of a prompt only",
    "capacity_unknown": "the cache's size is not known, so neither is what was evicted",
    "several_caches": "which of the server's caches took a request is not known, so neither is what"
    " was evicted",
    "beyond_eviction": "eviction at the cache's size does not explain it",
}


def has_usable_usage(record: Record) -> bool:
    """Whether the server said how many of how many prompt tokens came from its cache.

    A count above the prompt's length is impossible and counts as not reported.
    """
    if record.cached_tokens is None or record.prompt_tokens is None:
        return False
    return 0 <= record.cached_tokens <= record.prompt_tokens


def split_source(
    answered: Sequence[Record], prediction: Prediction | None, *, confirmed: bool = False
) -> str | None:
    """Who says what caused a hit: "server" if every answer carries its split, and one that can be,
    "attributed" if the server's count is split by the prediction, "predicted" if no answer has a count
    and the server's counters `confirmed` the prediction, None if none is to be had."""
    usable = [record for record in answered if has_usable_usage(record)]
    if usable and all(server_split(record, None) is not None for record in usable):
        return "server"
    if prediction is None:
        return None
    return "attributed" if usable else "predicted" if confirmed else None


@dataclass(frozen=True, slots=True)
class RequestSplits:
    """Splits of the answered requests, in their order.

    source: see `split_source`. splits: None where usage or source is missing. replay:
    "same_session", "cross_session" or None for a prompt that was new when it was sent.
    unexplained: why misses may be miss_unexplained; None where the server names all causes.
    """

    source: str | None
    splits: tuple[Split | None, ...]
    replay: tuple[str | None, ...]
    unexplained: Unexplained | None = None

    def only(self, rows: Rows) -> RequestSplits:
        """The requests where `rows` is True."""
        kept = [index for index, keep in enumerate(rows) if keep]
        return RequestSplits(
            self.source,
            tuple(self.splits[index] for index in kept),
            tuple(self.replay[index] for index in kept),
            self.unexplained,
        )


def split_requests(
    answered: Sequence[Record], prediction: Prediction | None, *, confirmed: bool = False
) -> RequestSplits:
    """Split every answered request. `prediction` must have the same rows in the same order."""
    source = split_source(answered, prediction, confirmed=confirmed)
    replay = _repeats(answered) if prediction is None else prediction.replay
    splits: list[Split | None] = []
    for row, record in enumerate(answered):
        if source == "predicted" and prediction is not None:
            tokens = int(prediction.expected_tokens[row]), int(prediction.prompt_tokens[row])
            splits.append(_attributed(*tokens, prediction, row))
        elif source is None or not has_usable_usage(record):
            splits.append(None)
        elif source == "server":
            splits.append(server_split(record, replay[row]))
        else:
            assert prediction is not None
            assert record.cached_tokens is not None
            assert record.prompt_tokens is not None
            splits.append(_attributed(record.cached_tokens, record.prompt_tokens, prediction, row))
    known = prediction if source in ("attributed", "predicted") else None
    why = known.unexplained if known else None
    return RequestSplits(source, tuple(splits), replay, why)


def server_split(record: Record, repeat: str | None) -> Split | None:
    """The server's own split; None if it gave none, or an impossible one: a negative part, or more
    tokens than the prompt has.

    A server knows prompts, not our sessions: if it reports `replay` as one number, our record of who
    sent the prompt before says which kind it was.
    """
    said = record.server_split
    if said is None or record.prompt_tokens is None:
        return None
    same, cross = said.get("replay_same_session", 0), said.get("replay_cross_session", 0)
    rest = max(0, said.get("replay", 0) - same - cross)
    if repeat == "same_session":
        same += rest
    else:
        cross += rest
    parts = {
        "replay_same_session": same,
        "replay_cross_session": cross,
        "continuation": said.get("continuation", 0),
        "shared": said.get("shared", 0),
        "miss_capacity": said.get("miss_capacity", 0),
    }
    if min(parts.values()) < 0 or sum(parts.values()) > record.prompt_tokens:
        return None
    return Split(prompt_tokens=record.prompt_tokens, **parts)


def _attributed(cached: int, prompt: int, prediction: Prediction, row: int) -> Split:
    """Of what was reusable and did not hit, eviction is blamed for no more than it explains."""
    split = attribute(
        cached,
        prompt_tokens=prompt,
        own_prefix_tokens=int(prediction.own_prefix_tokens[row]),
        replay=prediction.replay[row],
    )
    lost = min(max(0, int(prediction.reusable_tokens[row]) - cached), split.miss)
    evicted = min(lost, prediction.evicted_tokens(row))
    return msgspec.structs.replace(split, miss_capacity=evicted, miss_unexplained=lost - evicted)


def _repeats(answered: Sequence[Record]) -> tuple[str | None, ...]:
    """Replay kind from what was sent alone: was the identical prompt sent before, and by whom."""
    senders: dict[bytes, set[str]] = {}
    kinds: list[str | None] = []
    for record in answered:
        before = senders.setdefault(record.prompt_key, set())
        if not before:
            kinds.append(None)
        else:
            kinds.append("same_session" if record.session in before else "cross_session")
        before.add(record.session)
    return tuple(kinds)


def total_split(requests: RequestSplits, answered: Sequence[Record]) -> dict[str, Any]:
    """The `split` section of run.json, summed over the requests that have a split.

    Every figure is None, not 0, when no request has one. `answered` runs parallel to `requests`.
    """
    known = [split for split in requests.splits if split is not None]
    sessions = {r.session for r, s in zip(answered, requests.splits, strict=True) if s is not None}
    total = sum(known, Split(0)) if known else None
    return {
        "source": requests.source,
        "requests": len(known),
        "sessions": len(sessions),
        "prompt_tokens": total.prompt_tokens if total else None,
        "hit": total.hit if total else None,
        **{name: getattr(total, name) if total else None for name in PARTS},
        "hit_rate": total.rate("hit") if total else None,
        **{f"{name}_rate": total.rate(name) if total else None for name in PARTS},
        "miss_unexplained_why": requests.unexplained if total and total.miss_unexplained else None,
        "organic_hit_rate": _organic(requests),
        "hit_rate_half_width": half_width(requests, answered),
    }


def unexplained_note(tokens: int | None, prompt_tokens: int | None, why: str | None) -> str | None:
    """What to know of a run's `miss_unexplained`; None if there is none."""
    if not tokens or not prompt_tokens:
        return None
    return (
        f"{tokens:,} prompt tokens ({tokens / prompt_tokens:.1%}) could have hit and did not:"
        f" {_WHY.get(why or '', 'nobody knows why')}"
    )


def half_width(requests: RequestSplits, answered: Sequence[Record]) -> float | None:
    """Half width of the 95% interval of the hit rate, from how much sessions differ; None for one.

    The hit rate is a ratio r = sum h / sum p over S sessions (hit and prompt tokens), so its
    variance is about S / (S - 1) * sum (h - r p)^2 / (sum p)^2 (Cochran, Sampling Techniques, 6.4,
    with clusters). Sessions, not requests, are the units: requests of one session are alike.
    It says how far another draw of such sessions would move the rate, not how production differs.
    """
    sessions: dict[str, Split] = {}
    for split, record in zip(requests.splits, answered, strict=True):
        if split is not None:
            sessions[record.session] = sessions.get(record.session, Split(0)) + split
    total, count = sum(sessions.values(), Split(0)), len(sessions)
    rate = total.rate("hit")
    if rate is None or count < 2:
        return None
    squares = sum((one.hit - rate * one.prompt_tokens) ** 2 for one in sessions.values())
    return 1.96 * sqrt(count / (count - 1) * squares) / total.prompt_tokens


def _organic(requests: RequestSplits) -> float | None:
    """Genuine hit tokens / prompt tokens of the requests whose prompt was new when it was sent."""
    fresh = Split(0)
    for split, replay in zip(requests.splits, requests.replay, strict=True):
        if split is not None and replay is None:
            fresh += split
    return fresh.rate("genuine")
