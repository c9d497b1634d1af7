"""Which tokens the next forward pass computes, and what its result means for the block tree.

Decodes go first, then prompts in chunks, then new requests, within `max_batch_tokens` a step. All
of it runs on the engine's thread and is free of torch, clock and I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from loadkit.core.blocks import max_hit_blocks
from reference_server.accounting import History
from reference_server.block_tree import BlockTree
from reference_server.request import ABORT, ERROR, LENGTH, STOP, Chunk, Request


class Scheduler:
    """Queue, running requests and their pages. `on_admit` is called at first admission, `on_end`
    when a request ended for whatever reason; each once a request."""

    def __init__(
        self,
        tree: BlockTree,
        block_size: int,
        *,
        max_batch_tokens: int,
        max_num_seqs: int,
        on_admit: Callable[[Request], None] = lambda request: None,
        on_end: Callable[[Request], None] = lambda request: None,
    ):
        if max_batch_tokens < max_num_seqs:
            raise ValueError("max_batch_tokens must allow one token for each running request")
        self.tree, self.block_size = tree, block_size
        self.max_batch_tokens, self.max_num_seqs = max_batch_tokens, max_num_seqs
        self.on_admit, self.on_end = on_admit, on_end
        self.history = History()
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # oldest admission first
        self._filling: dict[bytes, Request] = {}  # prompt blocks that running requests compute

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    # -- before the forward pass

    def plan(self) -> list[Chunk]:
        """Chunks of the next step; admits what fits. Empty when there is nothing to do."""
        self._drop_aborted()
        chunks: list[Chunk] = []
        budget = self.max_batch_tokens
        for request in sorted(self.running, key=lambda r: r.num_pending > 1):
            budget -= self._add_chunk(chunks, request, budget)
        self._admit_waiting(chunks, budget)
        return chunks

    def _add_chunk(self, chunks: list[Chunk], request: Request, budget: int) -> int:
        num = min(budget, request.num_pending)
        if num > 0:
            if request.num_computed // self.block_size == len(request.pages):
                request.pages.append(self.tree.take_working())
            chunks.append(Chunk(request, request.num_computed, num))
        return max(num, 0)

    def _admit_waiting(self, chunks: list[Chunk], budget: int) -> None:
        """First come first served, except that whoever waits for a block being filled is passed."""
        passed: list[Request] = []
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            request = self.waiting.popleft()
            if self._is_being_filled(request):
                passed.append(request)
            elif self._admit(request):
                budget -= self._add_chunk(chunks, request, budget)
            else:
                passed.append(request)
                break
        self.waiting.extendleft(reversed(passed))

    def _usable(self, request: Request) -> list[bytes]:
        """Hashes of the blocks that may hit: the last token is always computed."""
        return request.hashes[: max_hit_blocks(len(request.tokens), self.block_size)]

    def _is_being_filled(self, request: Request) -> bool:
        """Whether a running request computes the first block that this one misses."""
        usable = self._usable(request)
        num_matched = len(self.tree.match(usable)) if self._filling else 0
        return num_matched < len(usable) and usable[num_matched] in self._filling

    def _admit(self, request: Request) -> bool:
        """Pin what is resident, reserve the rest of the full blocks. False: no room now."""
        tokens, size = len(request.tokens), self.block_size
        num_full = tokens // size
        if num_full:
            request.block_hash(num_full - 1)  # a requeued request has reply blocks, too
        usable = self._usable(request)
        matched = self.tree.match(usable)
        num_cached = len(matched) * size
        if len(matched) == len(usable) < num_full:  # whole prompt resident: keep its last block
            matched = self.tree.match(request.hashes[:num_full])
        num_reserve = num_full - len(matched)
        if not self.tree.can_admit(matched, num_reserve):
            return False
        num_evicted = self.tree.num_evicted(usable[num_cached // size :]) * size
        self.tree.pin(matched)
        request.nodes = matched
        request.pages = [n.page for n in matched] + self.tree.reserve(num_reserve)
        if tokens % size:
            request.pages.append(self.tree.take_working())
        request.num_reserved_end, request.num_computed = num_full, num_cached
        self._enter(request, num_cached, num_evicted)
        return True

    def _enter(self, request: Request, num_cached: int, num_evicted: int) -> None:
        for block_hash in request.hashes[len(request.nodes) : request.num_reserved_end]:
            self._filling.setdefault(block_hash, request)
        self.running.append(request)
        if request.split is None:
            request.split = self.history.admit(
                request, num_cached=num_cached, num_evicted=num_evicted
            )
            self.on_admit(request)

    # -- after the forward pass

    def apply(self, chunks: Sequence[Chunk], sampled: Sequence[int | None]) -> None:
        """Take in a step's result: tokens, full blocks, ended requests.

        `sampled` has the next token of each chunk that samples, None for the others.
        """
        for chunk, token in zip(chunks, sampled, strict=True):
            chunk.request.num_computed = chunk.end
            if token is not None:
                self._take_token(chunk.request, token)
        for request in list(self.running):
            self._publish(request)
        for request in [r for r in self.running if r.finish_reason]:
            self._end(request)

    def fail(self, request: Request) -> None:
        """End one request as an error; the others go on."""
        request.finish_reason = ERROR
        self._end(request)

    def _take_token(self, request: Request, token: int) -> None:
        params = request.params
        request.tokens.append(token)
        reason = None
        if token in params.eos_ids and not params.ignore_eos:
            reason = STOP
        elif request.num_output >= params.max_tokens:
            reason = LENGTH
        try:
            stopped = request.observe(token, reason)
        except Exception:  # whatever the caller's hook does, only this request fails
            request.finish_reason = ERROR
            return
        request.finish_reason = STOP if stopped else reason

    def _publish(self, request: Request) -> None:
        """Make the blocks findable that the step filled; the youngest gives way if no room."""
        while len(request.nodes) < request.num_computed // self.block_size:
            index = len(request.nodes)
            block_hash = request.block_hash(index)
            node = self.tree.publish(
                block_hash,
                request.nodes[-1] if request.nodes else None,
                request.pages[index],
                reserved=index < request.num_reserved_end,
            )
            if node is None:
                if self._preempt_youngest() is request:
                    return
                continue
            request.pages[index] = node.page
            request.nodes.append(node)
            self._stop_filling(block_hash, request)

    def _preempt_youngest(self) -> Request:
        """Drop the youngest running request's pages and put it first in the queue again.

        One that has ended keeps what it published so far and needs no room any more.
        """
        victim = next(request for request in reversed(self.running) if request.pages)
        self.history.finish(victim)
        self._release(victim)
        victim.num_computed = 0
        if victim.finish_reason is None:
            self.running.remove(victim)
            victim.num_preemptions += 1
            self.waiting.appendleft(victim)
        return victim

    def _drop_aborted(self) -> None:
        for request in [r for r in self.running if r.aborted]:
            request.finish_reason = ABORT
            self._end(request)
        if any(request.aborted for request in self.waiting):
            kept = deque(r for r in self.waiting if not r.aborted)
            dropped = [r for r in self.waiting if r.aborted]
            self.waiting = kept
            for request in dropped:
                request.finish_reason = ABORT
                self.notify(request)

    def _end(self, request: Request) -> None:
        self.history.finish(request)
        self._release(request)
        self.running.remove(request)
        self.notify(request)

    def _release(self, request: Request) -> None:
        """Give back every page: the unfinished block's page becomes dead, then the chain is
        touched tail first."""
        for block_hash in request.hashes[len(request.nodes) : request.num_reserved_end]:
            self._stop_filling(block_hash, request)
        partial = request.num_computed // self.block_size if self._has_partial(request) else -1
        for index in range(len(request.nodes), len(request.pages)):
            reserved = index < request.num_reserved_end
            give = self.tree.retire if index == partial else self.tree.give_back
            give(request.pages[index], reserved=reserved)
        self.tree.release(request.nodes)
        request.nodes, request.pages, request.num_reserved_end = [], [], 0

    def _has_partial(self, request: Request) -> bool:
        return request.num_computed % self.block_size != 0

    def _stop_filling(self, block_hash: bytes, request: Request) -> None:
        if self._filling.get(block_hash) is request:
            del self._filling[block_hash]

    def notify(self, request: Request) -> None:
        """Tell everybody that the request ended."""
        self.on_end(request)
        try:
            request.on_finish(request)
        except Exception:  # a hook of one request must not stop the others
            request.finish_reason = ERROR
