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

from loadkit.core.chats import Chats
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
        ptr = np.append(0, np.cumsum(counts))
        at = np.arange(ptr[-1]) + np.repeat(self.ptr[rows] - ptr[:-1], counts)
        return Turns(ptr, self.prompt_tokens[at], self.kept_tokens[at], self.key[at])


class TurnSource(Protocol):
    """Knows at once how many turns each request has, and finds where they end when asked."""

    @property
    def counts(self) -> IntArray:
        """(n,) turns of each request of the trace, itself included; UNKNOWN_TURNS if not known."""

    def of(self, rows: IntArray) -> Turns:
        """The turns of these requests."""


class ChatTurns:
    """Turns read off the messages of a text log, in the tokens of the served model's template."""

    def __init__(self, trace: Trace, chats: Chats, tokenizer: Tokenizer):
        self._trace, self._chats, self._tokenizer = trace, chats, tokenizer
        self._roles: dict[int, str | None] = {}

    @property
    def counts(self) -> IntArray:
        return np.array([self._count(row) for row in range(len(self._chats))], np.int64)

    def of(self, rows: IntArray) -> Turns:
        found = [self._turns(int(row)) for row in rows]
        ptr = np.append(0, np.cumsum([len(turns) for turns in found]))
        flat = [turn for turns in found for turn in turns]
        _, key = np.unique([turn[2] for turn in flat], return_inverse=True)
        return Turns(
            ptr.astype(np.int64),
            np.array([turn[0] for turn in flat], np.int64),
            np.array([turn[1] for turn in flat], np.int64),
            key.reshape(-1).astype(np.int64),
        )

    def _count(self, row: int) -> int:
        chat = self._chats[row]
        roles = [self._role(part) for part in chat.parts]
        if chat.is_prompt or None in roles:
            return UNKNOWN_TURNS
        return 1 + sum(role == "assistant" for role in roles[1:])

    def _role(self, part: int) -> str | None:
        if part not in self._roles:
            message = self._chats.part(part)
            self._roles[part] = message.get("role") if isinstance(message, dict) else None
        return self._roles[part]

    def _turns(self, row: int) -> list[tuple[int, int, bytes]]:
        """(prompt tokens, kept tokens, digest of the prompt) of each turn.

        A template may render history otherwise than it did when it was new (reasoning stripped):
        only what the earlier prompt has in common with this one was this session's own.
        """
        chat = self._chats[row]
        messages = [self._chats.part(part) for part in chat.parts]
        tools = self._chats.part(chat.tools)
        whole = self._render(messages, tools)
        replies = [at for at, said in enumerate(messages) if at and said["role"] == "assistant"]
        prompts = [self._render(messages[:at], tools) for at in replies]
        ends = [_common(prompt, whole) for prompt in prompts]
        kept = [_common(self._render(messages[: at + 1], tools), whole) for at in replies]
        cuts = np.unique([0, *ends, *kept])
        tokens = self._tokens_upto(whole, cuts)
        total = int(self._trace.prompt_tokens[row])
        turns = [
            (min(tokens[end], total), min(tokens[most], total), _digest(prompt))
            for end, most, prompt in zip(ends, kept, prompts, strict=True)
        ]
        return [*turns, (total, total, _digest(whole))]

    def _render(self, messages: Sequence[Any], tools: Any) -> str:
        return self._tokenizer.render_chat(messages, tools)

    def _tokens_upto(self, text: str, cuts: IntArray) -> dict[int, int]:
        """Tokens before each cut: of the pieces between cuts. Turns begin with special tokens, which
        no token reaches across."""
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        counts = [len(ids) for ids in self._tokenizer.encode_batch(pieces)]
        upto = np.append(0, np.cumsum(counts))
        return {int(cut): int(tokens) for cut, tokens in zip(cuts, upto, strict=True)}


def _common(one: str, other: str) -> int:
    """Leading characters that both have."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _digest(prompt: str) -> bytes:
    return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
