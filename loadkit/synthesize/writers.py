"""Requests of a plan as rows: token ids, or chats whose every word is one token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import IntArray
from loadkit.synthesize.chat_form import measure_form
from loadkit.synthesize.content import draws
from loadkit.synthesize.layout import Layout, Placed
from loadkit.synthesize.paths import Plan

# Ids below are bytes and special tokens in most vocabularies.
FIRST_TOKEN_ID = 1000


@dataclass(frozen=True, slots=True)
class Written:
    """A request's body and response, and what was planned for it. prompt: token ids, or messages
    that are tokenised by whoever wants to look."""

    body: dict[str, Any]
    response: dict[str, Any] | None
    prompt_tokens: int
    keys: IntArray


class Writer(Protocol):
    """Makes the body of a plan's request, and reads prompts back as token ids."""

    longer_requests: int
    added_tokens: int

    def write(self, row: int) -> Written: ...

    def tokens(self, bodies: Sequence[dict[str, Any]]) -> Sequence[Sequence[int]]: ...


class TokenIdWriter:
    """Prompts as token ids: exact by construction, for servers that take `prompt`."""

    longer_requests = added_tokens = 0

    def __init__(self, plan: Plan, vocab_size: int, seed: int):
        self.plan, self.seed = plan, seed
        self.num_values = vocab_size - FIRST_TOKEN_ID

    def write(self, row: int) -> Written:
        plan, prompt = self.plan, int(self.plan.prompt_tokens[row])
        reply, path = int(plan.reply_tokens[row]), plan.path(row)
        num_tokens = prompt + max(reply, 0)
        ids = FIRST_TOKEN_ID + draws(plan, path, num_tokens, self.num_values, self.seed)
        response = None
        if reply >= 0:  # readers leave the last token out: it is sampled, but never computed
            response = {"token_ids": [*ids[prompt:].tolist(), FIRST_TOKEN_ID]}
        return Written({"prompt": ids[:prompt].tolist()}, response, prompt, path)

    def tokens(self, bodies: Sequence[dict[str, Any]]) -> Sequence[Sequence[int]]:
        return [body["prompt"] for body in bodies]


class ChatWriter:
    """Prompts as messages under a tokenizer's chat template.

    A session's later requests repeat its messages and replies and add to them, where the log's
    blocks say so. longer_requests could not end inside blocks that they share, and are added_tokens
    longer in all; detached ones of the right length just do not go on in the session's next turn.
    """

    def __init__(self, plan: Plan, tokenizer: Tokenizer, words: Sequence[str], seed: int):
        self.plan, self.seed, self.tokenizer = plan, seed, tokenizer
        self.words = np.array(words, object)
        self.form = measure_form(tokenizer, words)
        self.layout = Layout(self.form, plan.block_size, plan.num_keys)
        self._own_keys: dict[tuple[int, int], int] = {}
        self.longer_requests = self.added_tokens = 0
        self._placed = self._place_all()

    def write(self, row: int) -> Written:
        plan, placed = self.plan, self._placed[row]
        reply = int(plan.reply_tokens[row])
        path = self._detached(row, placed) if placed.detached else plan.path(row)
        num_tokens = placed.prompt_tokens + max(reply, 0)
        words = self.words[draws(plan, path, num_tokens, len(self.words), self.seed)]
        response = None
        if reply >= 0:
            response = {"content": " ".join(words[placed.prompt_tokens :])}
        messages = self._messages(words, placed)
        return Written({"messages": messages}, response, placed.prompt_tokens, path)

    def tokens(self, bodies: Sequence[dict[str, Any]]) -> Sequence[Sequence[int]]:
        return self.tokenizer.encode_batch(
            [self.tokenizer.render_chat(body["messages"]) for body in bodies]
        )

    def _place_all(self) -> list[Placed]:
        """Shortest prompts first: a prompt that others go on from decides where they do."""
        plan = self.plan
        placed: dict[int, Placed] = {}
        for row in np.argsort(plan.prompt_tokens, kind="stable").tolist():
            prompt = int(plan.prompt_tokens[row])
            reply, asked = max(int(plan.reply_tokens[row]), 0), max(int(plan.asked_tokens[row]), 0)
            placed[row] = self.layout.place(plan.path(row), prompt, reply, asked)
            added = placed[row].prompt_tokens - prompt
            self.longer_requests += added > 0
            self.added_tokens += added
        return [placed[row] for row in range(len(placed))]

    def _detached(self, row: int, placed: Placed) -> IntArray:
        """The shared blocks of a prompt that leaves them, then blocks of its own."""
        plan, size = self.plan, self.plan.block_size
        shared = plan.path(row)[: plan.prompt_tokens[row] // size]
        num_tokens = placed.prompt_tokens + max(int(plan.reply_tokens[row]), 0)
        own = [
            self._own_key(int(plan.prompt_key[row]), number)
            for number in range(-(-num_tokens // size) - len(shared))
        ]
        return np.append(shared, np.array(own, np.int64))

    def _own_key(self, prompt_key: int, number: int) -> int:
        unused = self.plan.num_keys + len(self._own_keys)
        return self._own_keys.setdefault((prompt_key, number), unused)

    def _messages(self, words: np.ndarray[Any, Any], placed: Placed) -> list[dict[str, Any]]:
        messages = list(self.form.start)
        start = self.form.opening
        for mark in placed.marks:
            role = "user" if mark.closes else "assistant"
            messages.append({"role": role, "content": " ".join(words[start : mark.at])})
            start = mark.at + self.layout.width(mark)
        return messages
