"""vLLM's block pool (version 1 of its engine; rules as of 0.32).

- A lookup finds leading full blocks by hash, never the one with the last token. A request is admitted
  if all of its tokens find a place beside what running requests hold.
- Full blocks get their hash as they are scheduled: requests of the same step can hit them. A block
  that is computed twice is kept twice, and the older one is hit.
- A request's blocks are freed when it ends, tail first: those with a hash go to the end of the queue of
  free blocks, those without to its front. New blocks come from the front and lose their hash then.
- A running request that finds no free block takes those of the one that was admitted last.

The last token of a reply is never computed and takes no room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from loadkit.analysis.simulate.pools import NO_ROOM, WITHOUT_END, Chains


class VllmPool:
    """Blocks have names in order of their use. Free blocks without a hash are all in front of those
    with one, and all alike, so they are only counted."""

    preempted_first = True

    def __init__(self, chains: Chains, capacity: int | None):
        self._chains = chains
        self._capacity = WITHOUT_END if capacity is None else capacity
        self._blank = self._capacity
        self._idle: OrderedDict[int, None] = OrderedDict()  # free, with a hash; the oldest first
        self._copies: dict[int, dict[int, None]] = {}  # hash -> blocks that have it, oldest first
        self._hash: dict[int, int] = {}
        self._users: dict[int, int] = {}
        self._held: dict[int, list[int]] = {}
        self._num_hashed: dict[int, int] = {}  # by row: its leading blocks with a hash
        self._num_blocks = self._num_untold = self._num_ended = 0
        self._refused: tuple[int, int, int, int] | None = None  # who found no room, and when

    def fits(self, row: int) -> bool:
        return self._chains.num_pages(row, 0) <= self._capacity

    def admit(self, row: int, num_sampled: int) -> int:
        """All or nothing."""
        now = self._num_untold, self._num_ended, self._num_free
        if self._refused == (row, *now):
            return NO_ROOM
        found = self._find(row, num_sampled)
        num_new = self._num_pages(row, num_sampled) - len(found)
        if num_new + sum(block in self._idle for block in found) > self._num_free:
            self._refused = (row, *now)
            return NO_ROOM
        for block in found:
            self._idle.pop(block, None)
            self._users[block] += 1
        self._held[row] = found + self._take(num_new)
        self._num_hashed[row] = len(found)
        self._give_hashes(row, num_sampled)
        return len(found)

    def sampled(self, row: int, num_sampled: int) -> bool:
        """Room for the token just sampled, which the next step computes, unless it is the last."""
        if num_sampled > self._chains.last_computed(row):
            return True
        num_new = self._num_pages(row, num_sampled) - len(self._held[row])
        if num_new > self._num_free:
            return False
        self._held[row] += self._take(num_new)
        self._give_hashes(row, num_sampled)
        return True

    def victim(self, running: Sequence[int], num_sampled: Mapping[int, int]) -> int:
        """The one admitted last."""
        return running[-1]

    def preempt(self, row: int, num_sampled: int) -> None:
        self.finish(row)

    def finish(self, row: int) -> None:
        self._num_ended += 1
        for block in reversed(self._held.pop(row)):
            self._users[block] -= 1
            if not self._users[block]:
                if block in self._hash:
                    self._idle[block] = None
                else:
                    del self._users[block]
                    self._blank += 1

    @property
    def _num_free(self) -> int:
        return self._blank + len(self._idle)

    def _find(self, row: int, num_sampled: int) -> list[int]:
        most = self._chains.may_hit[row]
        if num_sampled:
            tokens = self._chains.prompt_tokens[row] + num_sampled
            most = (tokens - 1) // self._chains.block_size
        found: list[int] = []
        for content in self._chains.kept(row)[:most].tolist():
            copies = self._copies.get(content)
            if copies is None:
                break
            found.append(next(iter(copies)))
        return found

    def _num_pages(self, row: int, num_sampled: int) -> int:
        tokens = self._chains.prompt_tokens[row] + num_sampled
        return -(-tokens // self._chains.block_size)

    def _take(self, num_blocks: int) -> list[int]:
        taken = list(range(self._num_blocks, self._num_blocks + max(0, num_blocks)))
        self._num_blocks += len(taken)
        for block in taken:
            self._users[block] = 1
            if self._blank:
                self._blank -= 1
            else:
                self._evict(self._idle.popitem(last=False)[0])
        return taken

    def _evict(self, block: int) -> None:
        content = self._hash.pop(block)
        copies = self._copies[content]
        del copies[block], self._users[block]
        if not copies:
            del self._copies[content]

    def _give_hashes(self, row: int, num_sampled: int) -> None:
        """To the row's full blocks. What is in a reply that the log does not tell is in no prompt."""
        held, kept = self._held[row], self._chains.kept(row)
        tokens = self._chains.prompt_tokens[row] + num_sampled
        full = max(tokens // self._chains.block_size, self._chains.num_full(row, num_sampled))
        for index in range(self._num_hashed[row], min(full, len(held))):
            self._num_untold += 1
            content = int(kept[index]) if index < len(kept) else -self._num_untold
            self._hash[held[index]] = content
            self._copies.setdefault(content, {})[held[index]] = None
            self._num_hashed[row] = index + 1
