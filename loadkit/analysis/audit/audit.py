"""The append-only audit put together: turn pairs, what broke them, what each cause cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from loadkit.analysis.audit.causes import CAUSES
from loadkit.analysis.audit.compare import keepable_share, what_broke
from loadkit.analysis.audit.message import Found
from loadkit.analysis.audit.pairs import Losses, Pairs, pairs_of
from loadkit.analysis.reuse import Reuse
from loadkit.core.chats import Chats
from loadkit.core.trace import IntArray, Trace


class Example(msgspec.Struct, frozen=True):
    """The pair that lost most to a cause. Requests count from 1 in order of arrival.

    Places are None where the log has no text, or the cause has no place. before and after are
    excerpts of the text around the first difference; None unless text was asked for.
    """

    session: int
    request: int
    previous_request: int
    tokens_lost: int
    message_index: int | None
    role: str | None
    char: int | None
    before_chars: int | None
    after_chars: int | None
    before: str | None
    after: str | None


class BrokenBy(msgspec.Struct, frozen=True):
    """A cause: how many turn pairs it broke first, and the prompt tokens they lost to it."""

    cause: str
    title: str
    remedy: str
    pairs: int
    tokens_lost: int
    lost_rate: float | None
    example: Example


class AppendOnly(msgspec.Struct, frozen=True):
    """Consecutive requests of one session, compared in full blocks of their prompts.

    kept: the later prompt starts with every full block of the earlier one. truncated: it is shorter
    and goes no other way. rewritten: some block before the earlier one's end differs. Changes inside
    the partial last block do not show.

    tokens_lost: prompt tokens that missed an infinite cache and would have hit, had the earlier
    prompt been kept, and its reply if the log has it; at most the shorter of the two. lost_rate is
    of all prompt tokens, None without any. causes stand by tokens lost; each pair counts for the
    first thing that broke it.
    """

    turn_pairs: int
    kept: int
    rewritten: int
    truncated: int
    tokens_lost: int
    lost_rate: float | None
    causes: tuple[BrokenBy, ...]


@dataclass(frozen=True, slots=True)
class _Break:
    before: int
    after: int
    tokens_lost: int
    found: Found


def append_only(reuse: Reuse, reusable_tokens: IntArray, show_text: bool = False) -> AppendOnly:
    """Audit a log from its pass; `reusable_tokens` (n,) is what an infinite cache hits."""
    trace = reuse.trace
    pairs, losses = pairs_of(trace), Losses(reuse, reusable_tokens)
    breaks = list(_Auditor(trace, pairs, losses).broken())
    total = int(trace.prompt_tokens.sum())
    kept, truncated = int(pairs.kept.sum()), int(pairs.truncated.sum())
    lost = sum(found.tokens_lost for found in breaks)
    return AppendOnly(
        turn_pairs=len(pairs.after),
        kept=kept,
        rewritten=len(pairs.after) - kept - truncated,
        truncated=truncated,
        tokens_lost=lost,
        lost_rate=_rate(lost, total),
        causes=_by_cause(breaks, total, show_text, trace),
    )


class _Auditor:
    """Finds the cause of one broken pair after another."""

    def __init__(self, trace: Trace, pairs: Pairs, losses: Losses):
        self._pairs, self._losses = pairs, losses
        chats = trace.chats
        # Rows that were cut out of a trace leave its chats behind.
        self._chats = chats if chats is not None and len(chats) == trace.num_requests else None

    def broken(self) -> Iterator[_Break]:
        """Pairs whose prefix was not kept, or whose reply was lost."""
        pairs = self._pairs
        lost = self._losses.tokens(pairs.before, pairs.after)
        for pair in np.flatnonzero((lost > 0) | ~pairs.kept).tolist():
            after = int(pairs.after[pair])
            texts = self._chats if self._has_text(pair) else None
            if texts is None:
                yield self._by_blocks(pair, after)
            else:
                yield self._by_text(texts, pair, after)

    def _has_text(self, pair: int) -> bool:
        rows = self._pairs.before[pair], self._pairs.after[pair]
        return self._chats is not None and all(self._chats[int(row)].parts for row in rows)

    def _by_blocks(self, pair: int, after: int) -> _Break:
        """Without text the place of the first changed block is all that can be told."""
        pairs = self._pairs
        before, common = int(pairs.closest[pair]), int(pairs.closest_common[pair])
        lost = self._lost(before, after)
        whole = common == self._losses.prompt_blocks[before]
        if before != pairs.before[pair] and whole and not lost:
            cause = "other_thread"
        elif whole:
            cause = "reply_lost"
        elif common == self._losses.prompt_blocks[after]:
            cause = "rolled_back"
        else:
            cause = "history_changed" if common else "start_changed"
        return _Break(before, after, lost, Found(cause))

    def _by_text(self, chats: Chats, pair: int, after: int) -> _Break:
        previous = int(self._pairs.before[pair])
        before = _most_alike(chats, self._pairs.recent(pair), after)
        lost = self._lost(before, after)
        if before != previous and not lost:
            return _Break(before, after, 0, Found("other_thread"))
        found = what_broke(chats, before, after)
        if found.cause == "other_conversation":
            lost = 0
        elif "tools" in found.cause or "system_prompt" in found.cause:
            lost = self._lost(before, after, keepable_share(chats, before, after))
        return _Break(before, after, lost, found)

    def _lost(self, before: int, after: int, share: float = 1.0) -> int:
        return int(self._losses.tokens(np.array([before]), np.array([after]), share)[0])


def _most_alike(chats: Chats, rows: list[int], after: int) -> int:
    """The earlier request that shares most messages with the later one; ties: the latest."""
    parts = set(chats[after].parts)
    return max(rows, key=lambda row: len(parts.intersection(chats[row].parts)))


def _by_cause(
    breaks: list[_Break], total_tokens: int, show_text: bool, trace: Trace
) -> tuple[BrokenBy, ...]:
    groups: dict[str, list[_Break]] = {}
    for found in breaks:
        groups.setdefault(found.found.cause, []).append(found)
    causes = (
        _broken_by(code, group, total_tokens, show_text, trace) for code, group in groups.items()
    )
    return tuple(sorted(causes, key=lambda cause: (-cause.tokens_lost, -cause.pairs, cause.cause)))


def _broken_by(
    code: str, breaks: list[_Break], total_tokens: int, show_text: bool, trace: Trace
) -> BrokenBy:
    lost = sum(found.tokens_lost for found in breaks)
    worst = max(breaks, key=lambda found: found.tokens_lost)
    return BrokenBy(
        cause=code,
        title=CAUSES[code].title,
        remedy=CAUSES[code].remedy,
        pairs=len(breaks),
        tokens_lost=lost,
        lost_rate=_rate(lost, total_tokens),
        example=_example(worst, int(trace.session[worst.after]), show_text),
    )


def _example(worst: _Break, session: int, show_text: bool) -> Example:
    found = worst.found
    return Example(
        session=session,
        request=worst.after + 1,
        previous_request=worst.before + 1,
        tokens_lost=worst.tokens_lost,
        message_index=found.message_index,
        role=found.role,
        char=found.char,
        before_chars=found.before_chars,
        after_chars=found.after_chars,
        before=found.before if show_text else None,
        after=found.after if show_text else None,
    )


def _rate(part: int, total: int) -> float | None:
    return part / total if total else None
