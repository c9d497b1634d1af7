"""Which tokens the next forward pass computes, and what its result means for the block tree.

Decodes go first, then prompts in chunks, then new requests, within `max_batch_tokens` a step. All
of it runs on the engine's thread and is free of torch, clock and I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from reference_server.accounting import History
from reference_server.admission import Admission
from reference_server.block_tree import BlockTree
from reference_server.drafting import Drafter
from reference_server.holdings import Holdings
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
        self.holdings = Holdings(tree, block_size)

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
            if request.tenant in at_quota or self.holdings.waits_for_another(request):
                passed.append(request)
            elif self.admission.admit(request):
                self.holdings.enter(request)
                self.running.append(request)
                if request.num_preemptions == 0:
                    self.on_admit(request)
                budget -= self._add_chunk(chunks, request, budget)
            else:
                passed.append(request)
                if not self.admission.waits_for_own(request):
                    break
                at_quota.add(request.tenant)
        self.waiting.extendleft(reversed(passed))

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
            while not self.holdings.publish(request):
                if self._preempt_youngest() is request:
                    break
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

    def _preempt_youngest(self) -> Request:
        """Drop the youngest running request's pages and put it first in the queue again.

        One that has ended keeps what it published so far and needs no room any more.
        """
        victim = next(request for request in reversed(self.running) if request.pages)
        self.history.finish(victim)
        self.holdings.release(victim)
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
        self.holdings.release(request)
        self.running.remove(request)
        self.notify(request)

    def notify(self, request: Request) -> None:
        """Tell everybody that the request ended."""
        self.on_end(request)
        try:
            request.on_finish(request)
        except Exception:  # a hook of one request must not stop the others
            request.finish_reason = ERROR
