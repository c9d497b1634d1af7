"""What the guard remembers of conversations: digests in one bytes blob each, bounded, oldest out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from loadkit.core.digest_chain import DIGEST_SIZE

MAX_REPLIES = 16
# What an entry takes beside its chain: key, object, dict slot and at most MAX_REPLIES digests.
ENTRY_BYTES = 768


@dataclass(slots=True)
class History:
    """chain: digests of the tools and of each message of the longest request admitted.

    replies: digests of the replies to it, any of which may follow; b"" : the next message is not
    checked. num_open: replies still under way, which are not checked either.
    """

    chain: bytes
    used_s: float
    replies: bytes = b""
    num_open: int = 0

    @property
    def is_reply_known(self) -> bool:
        return bool(self.replies) and self.num_open == 0

    def may_follow(self, digest: bytes) -> bool:
        size = DIGEST_SIZE
        return any(
            self.replies[at : at + size] == digest for at in range(0, len(self.replies), size)
        )

    def end_reply(self, digests: bytes) -> None:
        """A reply ended; b"": cut off or unreadable, so a client may have any part of it."""
        self.num_open -= 1
        both = self.replies + digests
        is_bounded = len(both) <= MAX_REPLIES * DIGEST_SIZE
        self.replies = both if digests and is_bounded else b""


class Histories:
    """At most max_bytes of histories, none unused for ttl_s; the one used longest ago goes first.

    A conversation that was forgotten starts afresh: its next request is a first one.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self.max_bytes, self.ttl_s, self._clock = max_bytes, ttl_s, clock
        self.num_bytes = 0
        self._kept: OrderedDict[bytes, History] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> History | None:
        self._expire()
        return self._kept.get(key)

    def use(self, key: bytes, chain: bytes) -> History:
        """The history with this chain, most recently used: as it was if the chain was the same."""
        known = self._kept.pop(key, None)
        if known is not None:
            self.num_bytes -= _cost(known)
        if known is None or known.chain != chain:
            known = History(chain, 0.0)
        known.used_s = self._clock()
        self._kept[key] = known
        self.num_bytes += _cost(known)
        while self.num_bytes > self.max_bytes:
            self._drop_oldest()
        return known

    def _expire(self) -> None:
        oldest = self._clock() - self.ttl_s
        while self._kept and next(iter(self._kept.values())).used_s < oldest:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.num_bytes -= _cost(self._kept.popitem(last=False)[1])


def _cost(history: History) -> int:
    return len(history.chain) + ENTRY_BYTES
