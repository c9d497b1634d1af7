"""A chat request shows its session's earlier turns: they are the prompt up to each assistant message.

Needed where requests were sampled one by one, so that the earlier turns are not in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from loadkit.analysis.audit.texts import common_length
from loadkit.core.chats import Chats
from loadkit.core.csr import places, pointers
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import IntArray, Trace

UNKNOWN_TURNS = 0


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of r requests, the request itself being the last of its own. m = turns in all.

    prompt_tokens: how much of the request's prompt was that turn's prompt. kept_tokens: the same
    with the reply to it, whatever the next turn still has of it; for the last turn its prompt. key:
    equal for equal whole prompts.
    """

    ptr: IntArray  # (r + 1,)
    prompt_tokens: IntArray  # (m,)
    kept_tokens: IntArray  # (m,)
    key: IntArray  # (m,)

    @property
    def counts(self) -> IntArray:
        """(r,) which turn of its session each request is, from 1."""
        return np.diff(self.ptr)

    def of(self, rows: IntArray) -> Turns:
        """The turns of some of the requests."""
        counts = self.counts[rows]
        at = places(self.ptr[rows], counts)
        return Turns(pointers(counts), self.prompt_tokens[at], self.kept_tokens[at], self.key[at])


class TurnSource(Protocol):
    """Knows at once how many turns each request has, and finds where they end when asked."""

    @property
    def counts(self) -> IntArray:
        """(n,) turns of each request of the trace, itself included; UNKNOWN_TURNS if not known."""

    def of(self, rows: IntArray) -> Turns:
        """The turns of these requests."""


def turn_counts(chats: Chats) -> IntArray:
    """(n,) which turn of its session each request is: one more than the assistant's messages in it.
    UNKNOWN_TURNS where a request is no chat, or its text was not kept."""
    roles: dict[int, str | None] = {}
    counts = np.full(len(chats), UNKNOWN_TURNS, np.int64)
    for row in range(len(chats)):
        chat = chats[row]
        for part in chat.parts:
            if part not in roles:
                roles[part] = _role(chats.part(part))
        said = [roles[part] for part in chat.parts]
        if said and not chat.is_prompt and None not in said:
            counts[row] = 1 + said[1:].count("assistant")
    return counts


class ChatTurns:
    """Turns read off the messages of a text log, in the tokens of the served model's template."""

    def __init__(self, trace: Trace, chats: Chats, tokenizer: Tokenizer):
        self._trace, self._chats, self._tokenizer = trace, chats, tokenizer

    @property
    def counts(self) -> IntArray:
        return turn_counts(self._chats)

    def of(self, rows: IntArray) -> Turns:
        found = [self._turns(int(row)) for row in rows]
        counts = np.array([len(turns) for turns in found], np.int64)
        flat = [turn for turns in found for turn in turns]
        return Turns(
            pointers(counts),
            np.array([turn[0] for turn in flat], np.int64),
            np.array([turn[1] for turn in flat], np.int64),
            np.array([turn[2] for turn in flat], np.int64),
        )

    def _turns(self, row: int) -> list[tuple[int, int, int]]:
        """(prompt tokens, kept tokens, key of the prompt) of each turn.

        A template may render history otherwise than it did when it was new (reasoning stripped):
        only what the earlier prompt has in common with this one was this session's own.
        """
        chat = self._chats[row]
        messages = [self._chats.part(part) for part in chat.parts]
        tools = self._chats.part(chat.tools)
        whole = self._render(messages, tools)
        replies = [at for at, said in enumerate(messages) if at and _role(said) == "assistant"]
        prompts = [self._render(messages[:at], tools) for at in replies]
        ends = [common_length(prompt, whole) for prompt in prompts]
        kept = [common_length(self._render(messages[: at + 1], tools), whole) for at in replies]
        cuts = np.unique([0, *ends, *kept])
        tokens = self._tokens_upto(whole, cuts)
        total = int(self._trace.prompt_tokens[row])
        turns = [
            (min(tokens[end], total), min(tokens[most], total), _key(prompt))
            for end, most, prompt in zip(ends, kept, prompts, strict=True)
        ]
        return [*turns, (total, total, _key(whole))]

    def _render(self, messages: Sequence[Any], tools: Any) -> str:
        return self._tokenizer.render_chat(messages, tools)

    def _tokens_upto(self, text: str, cuts: IntArray) -> dict[int, int]:
        """Tokens before each cut: of the pieces between cuts. Turns begin with special tokens, which
        no token reaches across."""
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        counts = [len(ids) for ids in self._tokenizer.encode_batch(pieces)]
        upto = np.append(0, np.cumsum(counts))
        return {int(cut): int(tokens) for cut, tokens in zip(cuts, upto, strict=True)}


def _role(message: Any) -> str | None:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else None


def _key(prompt: str) -> int:
    """64 bits, signed."""
    digest = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
