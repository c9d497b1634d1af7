"""One request between the engine's thread and the event loop: tokens in, text deltas out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadkit.core.split import Split
from reference_server.api_errors import ApiError
from reference_server.detokenizer import Detokenizer, StopMatcher
from reference_server.node import TIER_NAMES
from reference_server.request import ABORT, ERROR, STOP, Request, Sample

SPLIT_FIELDS = (
    "replay",
    "replay_same_session",
    "replay_cross_session",
    "continuation",
    "shared",
    "miss_capacity",
    "miss_compulsory",
)


@dataclass(frozen=True, slots=True)
class Delta:
    """One token and the text it adds (may be empty); the last one has a `finish_reason`.

    `sample` has the log probabilities; None if they were not asked for."""

    text: str
    token_id: int
    finish_reason: str | None
    sample: Sample | None = None


class Generation:
    """`observe` and `finish` are called on the engine's thread, `deltas` on the event loop."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]):
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Delta | None] = asyncio.Queue()
        self._detokenizer = Detokenizer(decode)
        self._matcher = StopMatcher(stops)
        self.request: Request | None = None

    def observe(self, token: int, reason: str | None) -> bool:
        """True when a stop string is complete. The EOS token that ends a reply has no text."""
        text = "" if reason == STOP else self._matcher.add(self._detokenizer.add(token))
        if reason is not None:
            text += self._matcher.add(self._detokenizer.flush())
            text += self._matcher.flush()
        stopped = self._matcher.stopped
        samples = self.request.samples if self.request else ()
        self._put(Delta(text, token, STOP if stopped else reason, samples[-1] if samples else None))
        return stopped

    def finish(self, request: Request) -> None:
        self._put(None)

    def _put(self, item: Delta | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Every token as it comes. ApiError when the engine ended the request otherwise."""
        while (delta := await self._queue.get()) is not None:
            yield delta
        reason = self.request.finish_reason if self.request else ERROR
        if reason == ABORT:
            raise ApiError(503, "the server is stopping", code="aborted")
        if reason == ERROR:
            raise ApiError(500, "this request failed in the engine", code="engine_error")


def usage(request: Request) -> dict[str, Any]:
    """OpenAI's usage object with the cached-token split as this server counts it.

    device, host and disk are the cached tokens by where they lay; kept_tail are tokens behind them
    whose computation was saved, too, and which count as missed (see docs/decisions/005).
    """
    split = request.split or Split(request.num_prompt)
    return {
        "prompt_tokens": request.num_prompt,
        "completion_tokens": request.num_output,
        "total_tokens": len(request.tokens),
        "prompt_tokens_details": {"cached_tokens": split.hit},
        "loadkit": {
            **{name: getattr(split, name) for name in SPLIT_FIELDS},
            **dict(zip(TIER_NAMES, request.tier_tokens, strict=True)),
            "kept_tail": request.num_kept_tail,
        },
    }
