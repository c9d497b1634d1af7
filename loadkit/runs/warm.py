"""Did the server's cache hold blocks from before the run? Then its hits are not the run's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from loadkit.runs.record import Record

_REMEDY = "empty the cache first (--reset) or send other prompts (another --seed)"


def warm_note(
    records: Sequence[Record], answered: Sequence[Record], reconciliation: dict[str, Any]
) -> str | None:
    """The warning for the run's notes, or None: nothing shows that the cache was warm.

    Two signs: the server calls prompts replays that the run sent once, or it took more tokens from
    its cache than all that was answered could reuse, with no request left unanswered.
    """
    if replayed := foreign_replay_tokens(records, answered):
        what = f"the server knew {replayed:,} tokens of prompts from before this run"
        return f"warm cache: {what}; {_REMEDY}"
    cached = reconciliation["usage"]["cached_tokens"]
    possible = reconciliation["prediction_infinite_tokens"]
    if None in (cached, possible) or cached <= possible or reconciliation["unanswered_requests"]:
        return None
    what = f"{cached:,} tokens came from the cache, what was sent could reuse {possible:,} at most"
    return f"warm cache: {what}; {_REMEDY}"


def foreign_replay_tokens(records: Sequence[Record], answered: Sequence[Record]) -> int:
    """Tokens that the server's own split counts as replay, of prompts that the run sent once."""
    sent = Counter(record.prompt_key for record in records if record.prompt_key)
    return sum(
        tokens
        for record in answered
        if (tokens := _replay_tokens(record)) and sent[record.prompt_key] == 1
    )


def _replay_tokens(record: Record) -> int:
    said = record.server_split or {}
    kinds = said.get("replay_same_session", 0) + said.get("replay_cross_session", 0)
    return said.get("replay", kinds)
