"""The live view's numbers: the hit rate so far, by cause, over time, while a test is running.

Every load worker observes its own requests and ships what is new to the master with Locust's
reports; the master adds the parts up. The run folder does not come from here: `runs` makes it from
the journals. This is the quick look.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import msgspec

from loadkit.core.split import Split, attribute
from loadkit.locust_users.live_tally import Tally, TallyDelta, as_plain
from loadkit.locust_users.live_view import ExpectedHitRate, view_of
from loadkit.runs.record import Record
from loadkit.runs.splits import has_usable_usage, server_split

MAX_PROMPTS = 100_000
MAX_SESSIONS = 20_000


class Recent:
    """The last `limit` keys, each with a value; the one unused longest is forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[bytes | str, int] = OrderedDict()

    def put(self, key: bytes | str, value: int = 0) -> int | None:
        """Remember a key. Its former value, None if it was not known."""
        before = self._values.pop(key, None)
        self._values[key] = value
        if len(self._values) > self._limit:
            self._values.popitem(last=False)
        return before

    def get(self, key: bytes | str) -> int | None:
        """The value of a key, None if it is not known."""
        return self._values.get(key)

    def __len__(self) -> int:
        return len(self._values)


class PromptMemory:
    """What this process has sent lately: enough to tell a replay and a session's own prefix.

    Only this worker's requests are known, and only the last `MAX_PROMPTS` prompts and
    `MAX_SESSIONS` sessions: a first replay across workers looks like `shared`. Hence "estimated".
    """

    def __init__(self) -> None:
        self._prompts = Recent(2 * MAX_PROMPTS)
        self._sessions = Recent(MAX_SESSIONS)

    def note(self, record: Record) -> tuple[str | None, int]:
        """Remember a sent request. Before it: the kind of replay it is, own prefix in tokens.

        The own prefix is what the session's previous turn left in the cache at most: its prompt
        and its answer. It is 0 for a first turn; turns without usage are passed over.
        """
        own = (self._sessions.get(record.session) or 0) if record.turn else 0
        if record.prompt_tokens is not None:
            self._sessions.put(record.session, record.prompt_tokens + (record.output_tokens or 0))
        return self._replay(record), own

    def _replay(self, record: Record) -> str | None:
        if not record.prompt_key:  # then nobody knows whether two prompts are identical
            return None
        digest = _digest(record.prompt_key)
        seen_anywhere = self._prompts.put(digest) is not None
        if self._prompts.put(_digest(digest + record.session.encode())) is not None:
            return "same_session"
        return "cross_session" if seen_anywhere else None


class Live:
    """Counts of this process (a worker, or a master that adds up its workers)."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._memory = PromptMemory()

    def observe(self, record: Record) -> None:
        """Add one finished request. Call it once for each, whatever its outcome. What primes the
        cache or warms it up is remembered, not counted."""
        replay, own = self._memory.note(record) if record.sent_s is not None else (None, 0)
        if record.phase != "measured":
            return
        if record.server_split is not None:
            split, source = server_split(record, replay), "server"
        else:
            split, source = _estimated_split(record, replay, own), "estimated"
        self._tally.add(record, split, source, _is_replayed(split, replay))

    def reset(self) -> None:
        """Count from 0 again. What was sent is remembered: the server's cache remembers it too."""
        self._tally = Tally()

    def take(self) -> dict[str, Any]:
        """What was counted since the last `take`, for the master. What was sent is remembered."""
        taken, self._tally = self._tally, Tally()
        return as_plain(taken.delta())

    def merge(self, plain: object) -> None:
        """Add what a worker's `take` returned. msgspec.ValidationError if it is something else."""
        self._tally.merge(msgspec.convert(plain, TallyDelta))

    def snapshot(self, expected: ExpectedHitRate | None = None) -> dict[str, Any]:
        """The live view as one JSON object, schema `loadkit.live/1`; see `live_view.view_of`."""
        return view_of(self._tally, expected)


_LIVE = Live()


def get_live() -> Live:
    """The one `Live` of this process."""
    return _LIVE


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _is_replayed(split: Split | None, replay: str | None) -> bool:
    """Whether a request is left out of the organic rate: replay made its hits, or it was a replay
    of ours whose blocks were evicted meanwhile. Never a request with genuine hits."""
    if split is None:
        return False
    return split.replay > 0 or (replay is not None and split.hit == 0)


def _estimated_split(record: Record, replay: str | None, own: int) -> Split | None:
    """Split of the reported cached tokens by what we know of our own traffic. None: not reported, or
    more of them than the prompt has."""
    if not has_usable_usage(record):
        return None
    return attribute(
        record.cached_tokens or 0,
        prompt_tokens=record.prompt_tokens or 0,
        own_prefix_tokens=own,
        replay=replay,
    )
