"""Which shared prefix carries which share of the hits."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.analysis.audit.texts import excerpt, text_of, window
from loadkit.analysis.diversity.prefixes import Segments
from loadkit.core.chats import Chats
from loadkit.core.trace import Trace

PLACES = 20
_WORDS_CHARS = 48


class SharedPrefix(msgspec.Struct, frozen=True):
    """A part of prompts that several sessions have, between two branching points of the block tree.

    It stands from start_token on, after a prefix that is a part of its own, for `tokens` tokens.
    hit_tokens: hits in an infinite cache on blocks that only other sessions had put there; hit_share
    is of all such hits. first_request counts from 1. message_index: about where it begins, None
    without messages; words: how it begins, None unless text was asked for.
    """

    start_token: int
    tokens: int
    sessions: int
    requests: int
    hit_tokens: int
    hit_share: float
    first_request: int
    message_index: int | None
    words: str | None


def leaderboard(
    trace: Trace, segments: Segments, show_text: bool = False
) -> tuple[SharedPrefix, ...]:
    """The PLACES parts with most hit tokens, the largest first."""
    total = int(segments.hit_tokens.sum())
    best = np.argsort(-segments.hit_tokens, kind="stable")[:PLACES]
    best = best[segments.hit_tokens[best] > 0]
    return tuple(_shared_prefix(trace, segments, int(part), total, show_text) for part in best)


def _shared_prefix(
    trace: Trace, segments: Segments, part: int, total: int, show_text: bool
) -> SharedPrefix:
    size, start = trace.block_size, int(segments.start_block[part])
    row, hits = int(segments.first_request[part]), int(segments.hit_tokens[part])
    index, words = _begins(trace, row, start) if _has_text(trace) else (None, None)
    return SharedPrefix(
        start_token=start * size,
        tokens=int(segments.num_tokens[part]),
        sessions=int(segments.sessions[part]),
        requests=int(segments.requests[part]),
        hit_tokens=hits,
        hit_share=hits / total,
        first_request=row + 1,
        message_index=index,
        words=words if show_text else None,
    )


def _has_text(trace: Trace) -> bool:
    return trace.chats is not None and len(trace.chats) == trace.num_requests


def _begins(trace: Trace, row: int, start_block: int) -> tuple[int | None, str | None]:
    """Message and words at a depth, taking text to spread over tokens evenly."""
    chats = trace.chats
    assert chats is not None
    parts = chats[row].parts
    sizes = np.cumsum([chats.size(part) for part in parts])
    tokens = int(trace.prompt_tokens[row])
    if not len(parts) or not tokens:
        return None, None
    byte = int(sizes[-1]) * start_block * trace.block_size // tokens
    index = int(np.searchsorted(sizes, byte, side="right"))
    inside = byte - (int(sizes[index - 1]) if index else 0)
    words = _words(chats, parts[index], inside)
    return (None if chats[row].is_prompt else index), words


def _words(chats: Chats, part: int, at: int) -> str | None:
    message = chats.part(part)
    if message is None:
        return None
    text = text_of(message)
    rest = text if at == 0 else text[at:].partition(" ")[2]
    return excerpt(window(rest or text, 0), _WORDS_CHARS)
