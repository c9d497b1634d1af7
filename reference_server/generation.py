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
    """One token of choice `index` and the text it adds (may be empty); its choice's last one has a
    `finish_reason`. `offset`: characters of the choice before it. `sample` has the log
    probabilities; None if they were not asked for."""

    index: int
    text: str
    offset: int
    token_id: int
    finish_reason: str | None
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class End:
    """A choice is over; nothing of it follows."""

    reason: str


class Choice:
    """One reply: its text, and where it stops. Called on the engine's thread."""

    def __init__(
        self,
        index: int,
        decode: Callable[[Sequence[int]], str],
        stops: Sequence[str],
        put: Callable[[Delta | End], None],
    ):
        self.index, self._put = index, put
        self._detokenizer = Detokenizer(decode)
        self._matcher = StopMatcher(stops)
        self._num_chars = 0
        self.request: Request | None = None

    def observe(self, token: int, reason: str | None) -> bool:
        """True when a stop string is complete. The token that ends a reply has no text."""
        text = "" if reason == STOP else self._matcher.add(self._detokenizer.add(token))
        if reason is not None:
            text += self._matcher.add(self._detokenizer.flush())
            text += self._matcher.flush()
        stopped = self._matcher.stopped
        samples = self.request.samples if self.request else ()
        sample = samples[-1] if samples else None
        reason = STOP if stopped else reason
        self._put(Delta(self.index, text, self._num_chars, token, reason, sample))
        self._num_chars += len(text)
        return stopped

    def finish(self, request: Request) -> None:
        self._put(End(request.finish_reason or ERROR))


class Generation:
    """All choices of one request; `deltas` are read on the event loop."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str], num: int = 1):
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Delta | End] = asyncio.Queue()
        self.choices = [Choice(index, decode, stops, self._put) for index in range(num)]

    @property
    def requests(self) -> list[Request]:
        """The engine's requests, in the order of the choices; the first is the leader."""
        return [choice.request for choice in self.choices if choice.request is not None]

    def attach(self, leader: Request) -> None:
        """Make the further choices of a request that was made with the first one's hooks."""
        self.choices[0].request = leader
        for choice in self.choices[1:]:
            choice.request = leader.another_choice(choice.index, choice.observe, choice.finish)

    def _put(self, item: Delta | End) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Every token as it comes. ApiError when the engine ended a choice otherwise."""
        num_left = len(self.choices)
        while num_left:
            item = await self._queue.get()
            if isinstance(item, Delta):
                yield item
                continue
            num_left -= 1
            if item.reason == ABORT:
                raise ApiError(503, "the server is stopping", code="aborted")
            if item.reason == ERROR:
                raise ApiError(500, "this request failed in the engine", code="engine_error")


def usage(requests: Sequence[Request]) -> dict[str, Any]:
    """OpenAI's usage object with the cached-token split as this server counts it.

    The prompt counts once, however many choices it has. device, host and disk are the cached tokens
    by where they lay; kept_tail are tokens behind them whose computation was saved, too, and which
    count as missed (see docs/decisions/005).
    """
    leader = requests[0]
    split = leader.split or Split(leader.num_prompt)
    num_output = sum(request.num_output for request in requests)
    return {
        "prompt_tokens": leader.num_prompt,
        "completion_tokens": num_output,
        "total_tokens": leader.num_prompt + num_output,
        "prompt_tokens_details": {"cached_tokens": split.hit},
        "loadkit": {
            **{name: getattr(split, name) for name in SPLIT_FIELDS},
            **dict(zip(TIER_NAMES, leader.tier_tokens, strict=True)),
            "kept_tail": leader.num_kept_tail,
        },
    }
