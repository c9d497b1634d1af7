"""Which tokens the next forward pass computes, and what its result means for the block tree.

Decodes go first, then prompts in chunks, then new requests, within `max_batch_tokens` a step. All
of it runs on the engine's thread and is free of torch, clock and I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from loadkit.core.blocks import max_hit_blocks
from reference_server.accounting import History
from reference_server.admission import Admission
from reference_server.block_tree import Block, BlockTree
from reference_server.drafting import Drafter
from reference_server.node import Node
from reference_server.request import (
    ABORT,
    ERROR,
    LENGTH,
    STOP,
    Chunk,
    Request,
    Sample,
    accepted,
)


class Scheduler:
    """Queue, running requests and their pages. `on_admit` is called at first admission, `on_token`
    for each new token, `on_end` once when a request ended for whatever reason. `drafter` None: no
    guesses."""

    def __init__(
        self,
        tree: BlockTree,
        block_size: int,
        *,
        max_batch_tokens: int,
        max_num_seqs: int,
        on_admit: Callable[[Request], None] = lambda request: None,
        on_token: Callable[[Request], None] = lambda request: None,
        on_end: Callable[[Request], None] = lambda request: None,
        drafter: Drafter | None = None,
    ):
        if max_batch_tokens < max_num_seqs:
            raise ValueError("max_batch_tokens must allow one token for each running request")
        self.tree, self.block_size, self.drafter = tree, block_size, drafter
        self.max_batch_tokens, self.max_num_seqs = max_batch_tokens, max_num_seqs
        self.on_admit, self.on_token, self.on_end = on_admit, on_token, on_end
        self.history = History()
        self.admission = Admission(tree, self.history, block_size)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # oldest admission first
        self._filling: dict[bytes, Request] = {}  # prompt blocks that running requests compute

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        self.waiting.append(request)
        self.tree.lower.prefetch(self.tree.match(request.hashes))

    # -- before the forward pass

    def plan(self) -> list[Chunk]:
        """Chunks of the next step; admits what fits. Empty when there is nothing to do."""
        self._drop_aborted()
        chunks: list[Chunk] = []
        budget = self.max_batch_tokens
        reserve = len(self.running)  # a draft must not take another reply's one token
        for request in sorted(self.running, key=lambda r: r.num_pending > 1):
            reserve -= 1
            budget -= self._add_chunk(chunks, request, budget, spare=budget - reserve)
        self._admit_waiting(chunks, budget)
        return chunks

    def _add_chunk(self, chunks: list[Chunk], request: Request, budget: int, spare: int = 0) -> int:
        """`spare`: how much of the budget the request may use with a draft."""
        num = min(budget, request.num_pending)
        if num <= 0:
            return 0
        if request.num_computed // self.block_size == len(request.pages):
            request.pages.append(self.tree.take_working())
        draft: tuple[int, ...] = ()
        if self.drafter is not None and request.num_pending == 1 and request.num_output:
            draft = self.drafter.propose(request)[: max(0, spare - 1)]
            request.num_drafted += len(draft)
        chunks.append(Chunk(request, request.num_computed, num, draft))
        return num + len(draft)

    def _admit_waiting(self, chunks: list[Chunk], budget: int) -> None:
        """First come first served, except that whoever waits for a block being filled is passed,
        and all of a tenant that waits for its own quota."""
        passed: list[Request] = []
        at_quota: set[bytes] = set()
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            request = self.waiting.popleft()
            if request.tenant in at_quota or self._waits_for_another(request):
                passed.append(request)
            elif self.admission.admit(request):
                self._enter(request)
                budget -= self._add_chunk(chunks, request, budget)
            else:
                passed.append(request)
                if not self.admission.waits_for_own(request):
                    break
                at_quota.add(request.tenant)
        self.waiting.extendleft(reversed(passed))

    def _waits_for_another(self, request: Request) -> bool:
        """Whether a running request computes the first block that this one misses, or its leader
        the prompt."""
        leader = request.leader
        if leader is not None and leader.finish_reason is None:
            return leader.num_computed < leader.num_prompt
        if not self._filling:
            return False
        usable = request.hashes[: max_hit_blocks(len(request.tokens), self.block_size)]
        num_matched = len(self.tree.match(usable))
        return num_matched < len(usable) and usable[num_matched] in self._filling

    def _enter(self, request: Request) -> None:
        for block_hash in request.hashes[len(request.nodes) : request.num_reserved_end]:
            self._filling.setdefault(block_hash, request)
        self.running.append(request)
        if request.num_preemptions == 0:
            self.on_admit(request)

    # -- after the forward pass

    def apply(self, chunks: Sequence[Chunk], sampled: Sequence[Sequence[Sample]]) -> None:
        """Take in a step's result: tokens, full blocks, ended requests.

        `sampled` has for each chunk that samples what the model says after its last token and
        after each drafted one; nothing for the others.
        """
        for chunk, samples in zip(chunks, sampled, strict=True):
            chunk.request.num_computed = chunk.end
            self._take_samples(chunk, samples)
        for request in list(self.running):
            self._publish(request)
        for request in [r for r in self.running if r.finish_reason]:
            self._end(request)

    def fail(self, request: Request) -> None:
        """End one request as an error; the others go on."""
        request.finish_reason = ERROR
        self._end(request)

    def _take_samples(self, chunk: Chunk, samples: Sequence[Sample]) -> None:
        """The model's next token, and behind it those that a right draft foretold."""
        if not samples:
            return
        num_right = accepted(chunk, [sample.token for sample in samples])
        for index, sample in enumerate(samples[: num_right + 1]):
            if index:  # the draft's K/V is there
                chunk.request.num_computed += 1
                chunk.request.num_accepted += 1
            self._take_token(chunk.request, sample)
            if chunk.request.finish_reason:
                return

    def _take_token(self, request: Request, sample: Sample) -> None:
        params, token = request.params, sample.token
        request.tokens.append(token)
        if params.num_logprobs is not None:
            request.samples.append(sample)
        reason = None
        if token in params.ending_ids:
            reason = STOP
        elif request.num_output >= params.max_tokens:
            reason = LENGTH
        self.on_token(request)
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
            published = self.tree.publish(
                self._block(request, index, block_hash),
                request.pages[index],
                reserved=index < request.num_reserved_end,
            )
            if published is None:
                if self._preempt_youngest() is request:
                    return
                continue
            node, is_new = published
            if index >= request.num_blocks_used and request.leader is None:
                request.num_blocks_used = index + 1
                if not is_new:
                    self.tree.order.use((node,), is_new_prompt=request.is_new_prompt)
            request.pages[index] = node.place
            request.nodes.append(node)
            self._stop_filling(block_hash, request)

    def _block(self, request: Request, index: int, block_hash: bytes | None) -> Block:
        """What block `index` of the request holds so far; an unfinished one has no hash."""
        if index:
            request.block_hash(index - 1)
        parent: Node | None = request.nodes[index - 1] if index and block_hash else None
        tokens = request.block_tokens(index)[: request.num_computed - index * self.block_size]
        prefix_hash = request.prefix_hash(index)
        return Block(block_hash, parent, prefix_hash, tuple(tokens), request.tenant)

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
        has_partial = request.num_computed % self.block_size != 0
        partial = request.num_computed // self.block_size if has_partial else -1
        for index in range(len(request.nodes), len(request.pages)):
            page, reserved = request.pages[index], index < request.num_reserved_end
            if index == partial:
                self.tree.retire(self._block(request, index, None), page, reserved=reserved)
            else:
                self.tree.give_back(page, reserved=reserved, tenant=request.tenant)
        self.tree.release(request.nodes)
        request.nodes, request.pages, request.num_reserved_end = [], [], 0

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
