"""The engine: a thread that plans a step, runs the model and hands out tokens, until stopped."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from reference_server.block_tree import BlockTree
from reference_server.diversity_index import DiversityIndex
from reference_server.drafting import Drafter
from reference_server.engine_settings import EngineSettings
from reference_server.inbox import EngineDead, Inbox, QueueFull
from reference_server.policies import make_policy
from reference_server.request import ABORT, ERROR, Chunk, Request, Sample
from reference_server.request_log import RequestLog
from reference_server.runner import Listener, ModelRunner
from reference_server.scheduler import Scheduler
from reference_server.tiers import LowerTiers

__all__ = ["Engine", "EngineDead", "EngineSettings", "Listener", "ModelRunner", "QueueFull"]


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
        self.inbox = Inbox(settings.max_queue_requests, settings.max_queue_tokens)
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
        self.inbox.put(requests)

    def abort(self, request: Request) -> None:
        """Stop a request at the next step; harmless when it ended already."""
        self.inbox.abort(request)

    def reset_prefix_cache(self, timeout_s: float = 60.0) -> bool:
        """Forget every block and all history. False, and nothing done, while requests run.
        EngineDead."""
        return self.inbox.ask_reset().result(timeout_s)

    @property
    def num_waiting(self) -> int:
        return self.inbox.num_requests

    @property
    def num_running(self) -> int:
        return len(self.scheduler.running)

    @property
    def cache_usage(self) -> float:
        """Share of the pool in use by running requests, 0..1 (vLLM's kv_cache_usage_perc)."""
        return self.tree.pool.num_used / self.tree.pool.num_blocks

    # -- the thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the thread after its current step; what is unfinished ends as aborted, and what the
        cache holds goes to disk where there is a disk tier."""
        self.inbox.close("stopping")
        self.join(timeout_s)

    def join(self, timeout_s: float = 30.0) -> None:
        """Wait for the thread's end, if it was started."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self.inbox.closed is None:
                self.inbox.wait(lambda: self.scheduler.has_work)
                self.step()
            self._end_all(ABORT)
            self.tree.drain()
        except BaseException as error:  # the thread's edge: the server must learn of it
            self.error = error
            self.inbox.close(str(error))
            self._end_all(ERROR)

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
        arrived, resets = self.inbox.take()
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
        self.inbox.admitted(request)
        if request.leader is None:
            self.diversity.add(is_replay=not request.is_new_prompt)
            self.listener.admitted(request)

    def _ended(self, request: Request) -> None:
        if request.leader is None and request.split is not None:
            self.log.add(request)
        self.listener.finished(request)

    def _end_all(self, reason: str) -> None:
        """Tell every caller that its request ended; no step will follow."""
        arrived, resets = self.inbox.take()
        for answer in resets:
            answer.set_result(False)
        for request in [*self.scheduler.running, *self.scheduler.waiting, *arrived]:
            request.finish_reason = request.finish_reason or reason
            self.scheduler.notify(request)
