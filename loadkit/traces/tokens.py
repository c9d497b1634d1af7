"""Requests known as token ids -> a Trace: block hashes, whole-prompt keys and resident chains.

Used by the text formats, and by anything that has the token ids of a run at hand. The trace tells
blocks apart by the first 64 bits of their 128-bit hashes: among 100 million distinct blocks two are
taken for one with a chance of 3 in 10,000.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadkit.core.blocks import (
    packed_block_hashes,
    packed_prompt_hash,
    packed_tokens,
    root_hash,
)
from loadkit.core.chats import Chats
from loadkit.core.trace import FloatArray, IntArray, Trace
from loadkit.traces.interning import (
    ChainStore,
    IdTable,
    dense_by_appearance,
    join_chains,
    renumber,
    take_chains,
)
from loadkit.traces.lines import Place
from loadkit.traces.reading import Name
from loadkit.traces.rows import RowFacts, order_by_arrival
from loadkit.traces.sessions import resolve_sessions

_NAN = float("nan")
_NOWHERE = Path("request")


class TokenRequest(msgspec.Struct):
    """One request as token ids.

    reply: the output tokens whose keys and values the engine computed, so not the last sampled
    one; None when the reply is unknown, which is not the same as an empty one. num_output_tokens
    counts sampled tokens, None when unknown. Requests of another salt (isolation domain) or model (an
    adapter too) share no block. Times in seconds.
    text is what the tokens were made of, for the append-only audit: the messages, or the prompt as
    one string; reply_text the reply's text or message; None where the log has none.
    """

    prompt: Sequence[int]
    reply: Sequence[int] | None = None
    num_output_tokens: int | None = None
    session: Name | None = None
    salt: str = ""
    model: str = ""
    arrival_s: float | None = None
    latency_s: float | None = None
    text: Sequence[Any] | str | None = None
    tools: Sequence[Any] | None = None
    reply_text: Any | None = None


class TokenHasher:
    """Blocks and whole prompts of packed tokens -> 64-bit ids, each model and salt for itself."""

    def __init__(self, block_size: int):
        self.block_size = block_size
        self._roots: dict[tuple[str, str], bytes] = {}

    def root(self, request: TokenRequest) -> bytes:
        """The parent of the request's first block."""
        model, salt = request.model, request.salt
        if (model, salt) not in self._roots:
            self._roots[model, salt] = root_hash(model, salt)
        return self._roots[model, salt]

    def chain(self, packed: bytes, root: bytes) -> array[int]:
        """Chained ids of the full blocks."""
        return _first_halves(packed_block_hashes(packed, self.block_size, root))

    def key(self, packed: bytes, root: bytes) -> int:
        """Equal for identical whole prompts."""
        return _first_halves([packed_prompt_hash(packed, root)])[0]

    def notes(self) -> list[str]:
        """Says that the log has requests of several models, if it has."""
        num_models = len({model for model, _ in self._roots})
        if num_models < 2:
            return []
        return [f"the log has requests of {num_models} models: no block is shared between models"]


class TokenTraceBuilder:
    """Collects requests one by one, keeps hashes only, and builds the Trace."""

    def __init__(self, block_size: int):
        self.block_size = block_size
        table = IdTable()
        self._prompts, self._replies = ChainStore(table), ChainStore(table)
        self._facts = RowFacts()
        self._key, self._length, self._kv_tokens = array("q"), array("q"), array("q")
        self._latency, self._salt = array("d"), array("q")
        self._salts: dict[str, int] = {}
        self._num_replies = self._num_placed = 0
        self._hasher = TokenHasher(block_size)
        self._chats, self._num_texts = Chats(), 0

    def __len__(self) -> int:
        return len(self._length)

    def add(
        self, request: TokenRequest, place: Place | None = None, request_id: Name | None = None
    ) -> None:
        """Add a request. OverflowError if a token id does not fit 32 bits.

        FormatError, naming `place`, if only some requests have an arrival time. request_id is only
        looked at to count repeated ones.
        """
        self._num_placed += place is not None
        prompt, reply = packed_tokens(request.prompt), packed_tokens(request.reply or ())
        self._facts.add(
            place or Place(_NOWHERE, len(self) + 1),
            arrival_s=request.arrival_s,
            output_tokens=request.num_output_tokens,
            session=request.session,
            request_id=request_id,
        )
        self._add_hashes(prompt, reply, self._hasher.root(request))
        self._salt.append(self._salts.setdefault(request.salt, len(self._salts)))
        self._latency.append(_NAN if request.latency_s is None else request.latency_s)
        self._num_replies += request.reply is not None
        self._add_text(request)

    def _add_hashes(self, prompt: bytes, reply: bytes, root: bytes) -> None:
        """The prompt's full blocks, and those that the reply fills, the prompt's tail included."""
        ids, key = self._hasher.chain(prompt + reply, root), self._hasher.key(prompt, root)
        num_prompt = len(prompt) // 4
        self._prompts.add(ids[: num_prompt // self.block_size])
        self._replies.add(ids[num_prompt // self.block_size :])
        self._key.append(key)
        self._length.append(num_prompt)
        self._kv_tokens.append(num_prompt + len(reply) // 4)

    def _add_text(self, request: TokenRequest) -> None:
        self._num_texts += request.text is not None
        if request.text is None:
            self._chats.add_nothing()
        elif isinstance(request.text, str):
            self._chats.add_prompt(request.text, request.reply_text)
        else:
            self._chats.add_messages(request.text, request.tools, request.reply_text)

    def build(self, warnings: Sequence[str] = ()) -> Trace:
        """The Trace in order of arrival. Call it once, at the end."""
        arrival_s, order, notes = order_by_arrival(self._facts)
        rows = np.arange(len(self)) if order is None else order
        ptr, ids = take_chains(self._prompts.ptr, self._prompts.ids(), rows)
        resident = self._resident_chains(ptr, ids, rows)
        hashes = self._prompts.table.values()
        self._prompts.table.release()
        number = renumber(len(hashes), ids, *([resident[1]] if resident else []))
        hashes[number] = hashes.copy()
        codes = self._facts.session_codes(order)
        session, inferred, more = resolve_sessions(codes, ptr, ids, np.diff(ptr))
        return Trace(
            block_size=self.block_size,
            prompt_tokens=np.array(self._length, np.int64)[rows],
            block_ptr=ptr,
            block_ids=ids,
            prompt_key=dense_by_appearance(np.array(self._key, np.int64)[rows]),
            session=session,
            num_sessions=int(session.max(initial=-1)) + 1,
            sessions_inferred=inferred,
            output_tokens=self._facts.outputs(order),
            arrival_s=arrival_s,
            completed_s=self._completed(arrival_s, rows),
            resident_ptr=resident[0] if resident else None,
            resident_ids=resident[1] if resident else None,
            partial_page=np.array(self._kv_tokens, np.int64)[rows] % self.block_size != 0,
            warnings=(
                *warnings,
                *self._facts.repeated_ids(),
                *notes,
                *more,
                *self._hasher.notes(),
                *self._reply_notes(),
            ),
            chats=self._chats.take(rows) if self._num_texts else None,
            places=self._facts.places(order) if self._num_placed else None,
            tenant=np.array(self._salt, np.int64)[rows] if len(self._salts) > 1 else None,
            block_hashes=hashes,
        )

    def _resident_chains(
        self, ptr: IntArray, ids: IntArray, rows: IntArray
    ) -> tuple[IntArray, IntArray] | None:
        if not self._num_replies:
            return None
        replies = take_chains(self._replies.ptr, self._replies.ids(), rows)
        return join_chains(ptr, ids, *replies)

    def _reply_notes(self) -> list[str]:
        missing = len(self) - self._num_replies
        if not self._num_replies or not missing:
            return []
        return [f"{missing} requests have no reply in the log: only their prompts enter the cache"]

    def _completed(self, arrival_s: FloatArray | None, rows: IntArray) -> FloatArray | None:
        """Arrival plus latency; a request of unknown latency completes as it arrives."""
        latency = np.array(self._latency, np.float64)[rows]
        if arrival_s is None or np.isnan(latency).all():
            return None
        return arrival_s + np.nan_to_num(latency)


def _first_halves(hashes: Sequence[bytes]) -> array[int]:
    """The first 64 bits of 128-bit hashes, as signed integers."""
    both = array("q")
    both.frombytes(b"".join(hashes))
    return both[::2]


def token_trace(requests: Iterable[TokenRequest], block_size: int) -> Trace:
    """The Trace of requests given as token ids; see TokenTraceBuilder."""
    builder = TokenTraceBuilder(block_size)
    for request in requests:
        builder.add(request)
    return builder.build()
