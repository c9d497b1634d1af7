"""The engine: a thread that plans a step, runs the model and hands out tokens, until stopped."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from reference_server.block_tree import BlockTree
from reference_server.diversity_index import DiversityIndex
from reference_server.drafting import Drafter
from reference_server.engine_settings import EngineSettings
from reference_server.policies import make_policy
from reference_server.request import ABORT, ERROR, Chunk, Request, Sample
from reference_server.request_log import RequestLog
from reference_server.runner import Listener, ModelRunner
from reference_server.scheduler import Scheduler
from reference_server.tiers import LowerTiers

__all__ = ["Engine", "EngineDead", "EngineSettings", "Listener", "ModelRunner", "QueueFull"]


class QueueFull(Exception):
    """The queue's bound in requests or tokens is reached; try again later."""


class EngineDead(Exception):
    """The engine's thread ended with an error; nothing will be served any more."""


class Engine:
    """`submit`, `abort` and `reset_prefix_cache` may be called from any thread."""

    def __init__(
        self,
        runner: ModelRunner,
        settings: EngineSettings,
        listener: Listener | None = None,
        lower: LowerTiers | None = None,
    ):
        self.runner, self.settings = runner, settings
        self.listener = listener or Listener()
        self.diversity = DiversityIndex()
        self.log = RequestLog(settings.block_size)
        size = settings.block_size
        self.tree = BlockTree(
            settings.num_blocks,
            settings.max_num_seqs,
            make_policy(settings.policy, settings.num_blocks, size),
            tenant_quota=settings.tenant_quota_blocks,
            lower=lower,
            pages=runner.pages,
        )
        draft = settings.draft_tokens
        self.scheduler = Scheduler(
            self.tree,
            size,
            max_batch_tokens=settings.max_batch_tokens,
            max_num_seqs=settings.max_num_seqs,
            on_admit=self._admitted,
            on_token=self._note_token,
            on_end=self._ended,
            drafter=Drafter(self.tree, size, draft) if draft else None,
        )
        self.error: BaseException | None = None
        self._wake = threading.Condition()
        self._inbox: deque[Request] = deque()
        self._resets: deque[Future[bool]] = deque()
        self._queued: dict[Request, int] = {}
        self._queued_tokens = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- from any thread

    def max_new_tokens(self, num_prompt: int) -> int:
        """How many tokens may follow a prompt: the model's context and the pool both bound it.

        The last sampled token is never computed, so it needs no page. Below 1: does not fit.
        """
        blocks = self.settings.tenant_quota_blocks or self.settings.num_blocks
        pool_tokens = blocks * self.settings.block_size
        return min(self.runner.max_model_len - num_prompt, pool_tokens - num_prompt + 1)

    def submit(self, *requests: Request) -> None:
        """Queue a request, and its further choices behind it: all or none. QueueFull or EngineDead;
        the caller has checked that it fits."""
        with self._wake:
            if self.error is not None or self._stopping:
                raise EngineDead(str(self.error or "stopping"))
            self._check_queue(requests)
            for request in requests:
                self._queued[request] = len(request.tokens)
                self._queued_tokens += len(request.tokens)
                self._inbox.append(request)
            self._wake.notify()

    def abort(self, request: Request) -> None:
        """Stop a request at the next step; harmless when it ended already."""
        with self._wake:
            request.aborted = True
            self._wake.notify()

    def reset_prefix_cache(self, timeout_s: float = 60.0) -> bool:
        """Forget every block and all history. False, and nothing done, while requests run."""
        answer: Future[bool] = Future()
        with self._wake:
            if self.error is not None:
                raise EngineDead(str(self.error))
            self._resets.append(answer)
            self._wake.notify()
        return answer.result(timeout_s)

    @property
    def num_waiting(self) -> int:
        return len(self._queued)

    @property
    def num_running(self) -> int:
        return len(self.scheduler.running)

    @property
    def cache_usage(self) -> float:
        """Share of the pool in use by running requests, 0..1 (vLLM's kv_cache_usage_perc)."""
        return self.tree.pool.num_used / self.tree.pool.num_blocks

    def _check_queue(self, requests: Sequence[Request]) -> None:
        """An empty queue takes a request of any size."""
        num = len(self._queued) + len(requests)
        tokens = self._queued_tokens + sum(len(request.tokens) for request in requests)
        over = tokens > self.settings.max_queue_tokens or num > self.settings.max_queue_requests
        if self._queued and over:
            raise QueueFull(f"{len(self._queued)} requests with {self._queued_tokens} tokens wait")

    # -- the thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the thread after its current step; what is unfinished ends as aborted, and what the
        cache holds goes to disk where there is a disk tier."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self.join(timeout_s)

    def join(self, timeout_s: float = 30.0) -> None:
        """Wait for the thread's end, if it was started."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wait_for_work()
                self.step()
            self._end_all(ABORT)
            self.tree.drain()
        except BaseException as error:  # the thread's edge: the server must learn of it
            with self._wake:
                self.error = error
            self._end_all(ERROR)

    def _wait_for_work(self) -> None:
        with self._wake:
            self._wake.wait_for(
                lambda: self._inbox or self._resets or self._stopping or self.scheduler.has_work
            )

    def step(self) -> bool:
        """One scheduler step; False when there was nothing to compute."""
        self._take_in()
        chunks = self.scheduler.plan()
        if not chunks:
            return False
        self.listener.step(sum(chunk.num_tokens + len(chunk.draft) for chunk in chunks))
        chunks, sampled = self._execute(chunks)
        self.scheduler.apply(chunks, sampled)
        return True

    def _take_in(self) -> None:
        with self._wake:
            arrived, resets = list(self._inbox), list(self._resets)
            self._inbox.clear()
            self._resets.clear()
            for request in [r for r in self._queued if r.aborted]:
                self._leave_queue(request)
        for answer in resets:
            answer.set_result(self._reset())
        for request in arrived:
            self.scheduler.add(request)

    def _reset(self) -> bool:
        if self.scheduler.running:
            return False
        self.tree.clear()
        self.scheduler.history.clear()
        self.diversity.clear()
        return True

    def _execute(self, chunks: list[Chunk]) -> tuple[list[Chunk], Sequence[Sequence[Sample]]]:
        """Run a step; if it raises, run each chunk alone, so that only the faulty one fails."""
        try:
            return chunks, self.runner.execute(chunks)
        except Exception:
            return self._execute_alone(chunks)

    def _execute_alone(self, chunks: list[Chunk]) -> tuple[list[Chunk], list[Sequence[Sample]]]:
        """Where nothing works, not even a probe, the engine ends with the probe's error."""
        done: list[Chunk] = []
        sampled: list[Sequence[Sample]] = []
        for chunk in chunks:
            try:
                sampled += self.runner.execute([chunk])
                done.append(chunk)
            except Exception as error:  # this request's fault: its finish reason says so
                print(f"loadkit serve: a request failed: {error!r:.500}", file=sys.stderr)
                self.scheduler.fail(chunk.request)
        if not done:
            self.runner.probe()
        return done, sampled

    def _note_token(self, request: Request) -> None:
        now, last = time.monotonic(), request.last_token_s
        request.last_token_s = now
        request.first_token_s = request.first_token_s or now
        self.listener.token(request, None if last is None else now - last)

    def _admitted(self, request: Request) -> None:
        request.admitted_s = time.monotonic()
        with self._wake:
            self._leave_queue(request)
        if request.leader is None:
            self.diversity.add(is_replay=not request.is_new_prompt)
            self.listener.admitted(request)

    def _ended(self, request: Request) -> None:
        if request.leader is None and request.split is not None:
            self.log.add(request)
        self.listener.finished(request)

    def _leave_queue(self, request: Request) -> None:
        self._queued_tokens -= self._queued.pop(request, 0)

    def _end_all(self, reason: str) -> None:
        """Tell every caller that its request ended; no step will follow."""
        with self._wake:
            left = [*self.scheduler.running, *self.scheduler.waiting, *self._inbox]
            resets = list(self._resets)
            self._resets.clear()
        for answer in resets:
            answer.set_result(False)
        for request in left:
            request.finish_reason = request.finish_reason or reason
            self.scheduler.notify(request)
