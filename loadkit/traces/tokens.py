"""Requests known as token ids -> a Trace: block hashes, whole-prompt keys and resident chains.

Used by the text formats, and by anything that has the token ids of a run at hand.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from loadkit.core.blocks import block_hashes, prompt_hash, root_hash
from loadkit.core.chats import Chats
from loadkit.core.errors import InputError
from loadkit.core.trace import UNKNOWN, FloatArray, IntArray, Trace
from loadkit.traces.columns import resolve_sessions, take_chains


class TokenRequest(msgspec.Struct):
    """One request as token ids.

    reply: the output tokens whose keys and values the engine computed, so not the last sampled
    one; None when the reply is unknown, which is not the same as an empty one. num_output_tokens
    counts sampled tokens, None when unknown. salt names the isolation domain. Times in seconds.
    text is what the tokens were made of, for the append-only audit: the messages, or the prompt as
    one string; reply_text the reply's text or message; None where the log has none.
    """

    prompt: Sequence[int]
    reply: Sequence[int] | None = None
    num_output_tokens: int | None = None
    session: str | int | None = None
    salt: str = ""
    arrival_s: float | None = None
    latency_s: float | None = None
    text: Sequence[Any] | str | None = None
    tools: Sequence[Any] | None = None
    reply_text: Any | None = None


class _Chains:
    """Chains of hashes with dense ids, growing row by row."""

    def __init__(self, ids: dict[bytes, int]):
        self._ids = ids
        self._ptr, self._flat = array("q", [0]), array("q")

    def add(self, hashes: Sequence[bytes]) -> None:
        ids = self._ids
        self._flat.extend(ids.setdefault(block, len(ids)) for block in hashes)
        self._ptr.append(len(self._flat))

    @property
    def ptr(self) -> IntArray:
        return np.array(self._ptr, np.int64)

    @property
    def flat(self) -> IntArray:
        return np.array(self._flat, np.int64)


class TokenTraceBuilder:
    """Collects requests one by one, keeps hashes only, and builds the Trace."""

    def __init__(self, block_size: int):
        self.block_size = block_size
        blocks: dict[bytes, int] = {}
        self._prompts, self._residents = _Chains(blocks), _Chains(blocks)
        self._keys: dict[bytes, int] = {}
        self._key, self._length = array("q"), array("q")
        self._outputs, self._kv_tokens = array("q"), array("q")
        self._names: list[str | int | None] = []
        self._arrival: list[float | None] = []
        self._latency: list[float | None] = []
        self._num_replies = 0
        self._chats, self._num_texts = Chats(), 0

    def add(self, request: TokenRequest) -> None:
        """Add a request. OverflowError if a token id does not fit 32 bits."""
        root, reply = root_hash(salt=request.salt), request.reply or ()
        tokens = [*request.prompt, *reply]
        hashes = block_hashes(tokens, self.block_size, root)
        self._prompts.add(hashes[: len(request.prompt) // self.block_size])
        self._residents.add(hashes)
        key = prompt_hash(request.prompt, root)
        self._key.append(self._keys.setdefault(key, len(self._keys)))
        self._length.append(len(request.prompt))
        self._kv_tokens.append(len(tokens))
        outputs = request.num_output_tokens
        self._outputs.append(UNKNOWN if outputs is None else outputs)
        self._names.append(request.session)
        self._arrival.append(request.arrival_s)
        self._latency.append(request.latency_s)
        self._num_replies += request.reply is not None
        self._add_text(request)

    def _add_text(self, request: TokenRequest) -> None:
        self._num_texts += request.text is not None
        if request.text is None:
            self._chats.add_nothing()
        elif isinstance(request.text, str):
            self._chats.add_prompt(request.text, request.reply_text)
        else:
            self._chats.add_messages(request.text, request.tools, request.reply_text)

    def build(self, warnings: Sequence[str] = ()) -> Trace:
        """The Trace in order of arrival. InputError if only some requests have an arrival time."""
        lengths = np.array(self._length, np.int64)
        order, arrival_s, notes = self._order()
        ptr, ids = take_chains(self._prompts.ptr, self._prompts.flat, order)
        resident = take_chains(self._residents.ptr, self._residents.flat, order)
        names = [self._names[row] for row in order]
        session, inferred, more = resolve_sessions(names, ptr, ids, np.diff(ptr))
        return Trace(
            block_size=self.block_size,
            prompt_tokens=lengths[order],
            block_ptr=ptr,
            block_ids=ids,
            prompt_key=np.array(self._key, np.int64)[order],
            session=session,
            num_sessions=int(session.max(initial=-1)) + 1,
            sessions_inferred=inferred,
            output_tokens=np.array(self._outputs, np.int64)[order],
            arrival_s=arrival_s,
            completed_s=self._completed(arrival_s, order),
            resident_ptr=resident[0] if self._num_replies else None,
            resident_ids=resident[1] if self._num_replies else None,
            partial_page=np.array(self._kv_tokens, np.int64)[order] % self.block_size != 0,
            warnings=(*warnings, *notes, *more, *self._reply_notes()),
            chats=self._chats.take(order) if self._num_texts else None,
        )

    def _reply_notes(self) -> list[str]:
        missing = len(self._length) - self._num_replies
        if not self._num_replies or not missing:
            return []
        return [f"{missing} requests have no reply in the log: only their prompts enter the cache"]

    def _order(self) -> tuple[IntArray, FloatArray | None, list[str]]:
        count = len(self._arrival)
        known = sum(time is not None for time in self._arrival)
        if not known:
            note = "the log has no timestamps: requests are taken in the order given"
            return np.arange(count), None, [note]
        if known < count:
            raise InputError(
                f"{count - known} of {count} requests have no timestamp",
                where="timestamp",
                remedy="give every request a timestamp, or none",
            )
        times = np.array(self._arrival, np.float64)
        order = np.argsort(times, kind="stable")
        backwards = int(np.sum(np.diff(times) < 0))
        note = f"timestamps go backwards {backwards} times: rows were sorted"
        return order, times[order], [note] if backwards else []

    def _completed(self, arrival_s: FloatArray | None, order: IntArray) -> FloatArray | None:
        """Arrival plus latency; a request of unknown latency completes as it arrives."""
        if arrival_s is None or all(latency is None for latency in self._latency):
            return None
        return arrival_s + np.array([self._latency[row] or 0.0 for row in order], np.float64)


def token_trace(requests: Iterable[TokenRequest], block_size: int) -> Trace:
    """The Trace of requests given as token ids; see TokenTraceBuilder."""
    builder = TokenTraceBuilder(block_size)
    for request in requests:
        builder.add(request)
    return builder.build()
