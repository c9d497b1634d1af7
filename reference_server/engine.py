"""The engine: a thread that plans a step, runs the model and hands out tokens, until stopped."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from loadkit.core.errors import InputError
from reference_server.block_tree import BlockTree
from reference_server.request import ABORT, ERROR, Chunk, Request
from reference_server.scheduler import Scheduler


class ModelRunner(Protocol):
    """Computes chunks. Pages and blocks are the scheduler's business; the runner only obeys.

    `execute` writes the K/V of each chunk through its request's page table and returns, in the
    same order, the next token of a chunk that `samples` and None for the others. It may be asked
    for the same chunk again after it raised. `probe` raises if the model cannot run at all.
    """

    vocab_size: int
    max_model_len: int

    def execute(self, chunks: Sequence[Chunk]) -> list[int | None]: ...

    def probe(self) -> None: ...


class Listener:
    """What the engine tells; all calls come from the engine's thread. Does nothing by itself."""

    def admitted(self, request: Request) -> None: ...

    def token(self, request: Request, since_last_s: float | None) -> None:
        """`since_last_s` is None for the first token."""

    def finished(self, request: Request) -> None: ...


class QueueFull(Exception):
    """The queue's bound in requests or tokens is reached; try again later."""


class EngineDead(Exception):
    """The engine's thread ended with an error; nothing will be served any more."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`max_batch_tokens` is the chunk budget of a step; the queue is bounded in both units."""

    block_size: int = 16
    num_blocks: int = 2048
    max_batch_tokens: int = 512
    max_num_seqs: int = 16
    max_queue_tokens: int = 262_144
    max_queue_requests: int = 1024

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise InputError("must be at least 1", where=f"--{name.replace('_', '-')}")
        if self.max_batch_tokens < self.max_num_seqs:
            raise InputError("must be at least --max-num-seqs", where="--max-batch-tokens")


class Engine:
    """`submit`, `abort` and `reset_prefix_cache` may be called from any thread."""

    def __init__(
        self, runner: ModelRunner, settings: EngineSettings, listener: Listener | None = None
    ):
        self.runner, self.settings = runner, settings
        self.listener = listener or Listener()
        self.tree = BlockTree(settings.num_blocks, settings.max_num_seqs)
        self.scheduler = Scheduler(
            self.tree,
            settings.block_size,
            max_batch_tokens=settings.max_batch_tokens,
            max_num_seqs=settings.max_num_seqs,
            on_admit=self._admitted,
            on_end=self.listener.finished,
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
        pool_tokens = self.settings.num_blocks * self.settings.block_size
        return min(self.runner.max_model_len - num_prompt, pool_tokens - num_prompt + 1)

    def submit(self, request: Request) -> None:
        """Queue a request. QueueFull or EngineDead; the caller has checked that it fits."""
        with self._wake:
            if self.error is not None or self._stopping:
                raise EngineDead(str(self.error or "stopping"))
            self._check_queue(request)
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
        return self.tree.num_used / self.tree.num_blocks

    def _check_queue(self, request: Request) -> None:
        """An empty queue takes a request of any size."""
        tokens = self._queued_tokens + len(request.tokens)
        full = tokens > self.settings.max_queue_tokens
        if self._queued and (full or len(self._queued) >= self.settings.max_queue_requests):
            raise QueueFull(f"{len(self._queued)} requests with {self._queued_tokens} tokens wait")

    # -- the thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the thread after its current step; what is unfinished ends as aborted."""
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
        chunks, sampled = self._execute(chunks)
        self._note_tokens(chunks, sampled)
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
        return True

    def _execute(self, chunks: list[Chunk]) -> tuple[list[Chunk], list[int | None]]:
        """Run a step; if it raises, run each chunk alone, so that only the faulty one fails."""
        try:
            return chunks, self.runner.execute(chunks)
        except Exception:
            return self._execute_alone(chunks)

    def _execute_alone(self, chunks: list[Chunk]) -> tuple[list[Chunk], list[int | None]]:
        """Where nothing works, not even a probe, the engine ends with the probe's error."""
        done: list[Chunk] = []
        sampled: list[int | None] = []
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

    def _note_tokens(self, chunks: Sequence[Chunk], sampled: Sequence[int | None]) -> None:
        now = time.monotonic()
        for chunk, token in zip(chunks, sampled, strict=True):
            if token is not None:
                request = chunk.request
                last = request.last_token_s
                request.last_token_s = now
                request.first_token_s = request.first_token_s or now
                self.listener.token(request, None if last is None else now - last)

    def _admitted(self, request: Request) -> None:
        with self._wake:
            self._leave_queue(request)
        self.listener.admitted(request)

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
