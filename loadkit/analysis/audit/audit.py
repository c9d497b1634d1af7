"""The append-only audit put together: turn pairs, what broke them, what each cause cost."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from loadkit.analysis.audit.between import between_sessions
from loadkit.analysis.audit.compare import keepable_share, texts_of, what_broke
from loadkit.analysis.audit.message import Found
from loadkit.analysis.audit.pairs import Losses, Pairs, pairs_of
from loadkit.analysis.audit.relink import relinked
from loadkit.analysis.audit.result import Break, BrokenBy, by_cause, rate
from loadkit.analysis.reuse import Reuse
from loadkit.core.chats import Chats
from loadkit.core.trace import IntArray, Trace


class AppendOnly(msgspec.Struct, frozen=True):
    """Consecutive requests of one session, compared in full blocks of their prompts.

    kept: the later prompt starts with every full block of the earlier one. truncated: it is shorter
    and goes no other way. rewritten: some block before the earlier one's end differs. Changes inside
    the partial last block do not show.

    In a log without session ids, a request that opens an inferred session but has an earlier one's
    last message in its history makes a turn pair too, a rewritten one.

    tokens_lost: prompt tokens that missed an infinite cache and would have hit, had the earlier
    prompt been kept, and its reply if the log has it; at most the shorter of the two. lost_rate is
    of all prompt tokens, None without any. causes stand by tokens lost; each pair counts for the
    first thing that broke it.

    between_sessions: what kept sessions from sharing a system prompt and tools that are the same but
    for a volatile word or an order. Its pairs are first requests of sessions, each with the first
    one of its kind; its tokens are not in tokens_lost.
    """

    turn_pairs: int
    kept: int
    rewritten: int
    truncated: int
    tokens_lost: int
    lost_rate: float | None
    causes: tuple[BrokenBy, ...]
    between_sessions: tuple[BrokenBy, ...]


def append_only(reuse: Reuse, reusable_tokens: IntArray, show_text: bool = False) -> AppendOnly:
    """Audit a log from its pass; `reusable_tokens` (n,) is what an infinite cache hits."""
    trace = reuse.trace
    pairs, losses = pairs_of(trace), Losses(reuse, reusable_tokens)
    unlinked = relinked(trace, texts_of(trace))
    auditor = _Auditor(trace, pairs, losses)
    breaks = [*auditor.broken(), *(auditor.compared(*rows) for rows in unlinked)]
    total = int(trace.prompt_tokens.sum())
    turn_pairs = len(pairs.after) + len(unlinked)
    kept, truncated = int(pairs.kept.sum()), int(pairs.truncated.sum())
    lost = sum(found.tokens_lost for found in breaks)
    return AppendOnly(
        turn_pairs=turn_pairs,
        kept=kept,
        rewritten=turn_pairs - kept - truncated,
        truncated=truncated,
        tokens_lost=lost,
        lost_rate=rate(lost, total),
        causes=by_cause(breaks, trace, show_text),
        between_sessions=between_sessions(
            trace, losses, show_text, {later for _, later in unlinked}
        ),
    )


class _Auditor:
    """Finds the cause of one broken pair after another."""

    def __init__(self, trace: Trace, pairs: Pairs, losses: Losses):
        self._pairs, self._losses = pairs, losses
        self._chats = texts_of(trace)
        self._lost_to_closest = losses.tokens(pairs.closest, pairs.after)

    def broken(self) -> Iterator[Break]:
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

    def _by_blocks(self, pair: int, after: int) -> Break:
        """Without text the place of the first changed block is all that can be told."""
        pairs = self._pairs
        before, common = int(pairs.closest[pair]), int(pairs.closest_common[pair])
        lost = int(self._lost_to_closest[pair])
        whole = common == self._losses.prompt_blocks[before]
        if before != pairs.before[pair] and whole and not lost:
            cause = "other_thread"
        elif whole:
            cause = "reply_lost"
        elif common == self._losses.prompt_blocks[after]:
            cause = "rolled_back"
        else:
            cause = "history_changed" if common else "start_changed"
        return Break(before, after, lost, Found(cause))

    def _by_text(self, chats: Chats, pair: int, after: int) -> Break:
        previous = int(self._pairs.before[pair])
        before = _most_alike(chats, self._pairs.recent(pair), after)
        if before != previous and not self._lost(before, after):
            return Break(before, after, 0, Found("other_thread"))
        return self.compared(before, after)

    def compared(self, before: int, after: int) -> Break:
        """Two requests that have text."""
        chats, lost = self._chats, self._lost(before, after)
        assert chats is not None
        found = what_broke(chats, before, after)
        if found.cause == "other_conversation":
            lost = 0
        elif "tools" in found.cause or "system_prompt" in found.cause:
            lost = self._lost(before, after, keepable_share(chats, before, after))
        return Break(before, after, lost, found)

    def _lost(self, before: int, after: int, share: float = 1.0) -> int:
        return int(self._losses.tokens(np.array([before]), np.array([after]), share)[0])


def _most_alike(chats: Chats, rows: list[int], after: int) -> int:
    """The earlier request that shares most messages with the later one; ties: the latest."""
    parts = set(chats[after].parts)
    return max(rows, key=lambda row: len(parts.intersection(chats[row].parts)))
