"""Texts of an exact number of tokens, for whatever tokenizer counts them.

Words are taken from a corpus until their tokens suffice; their costs are added up word by word,
which is exact where a tokenizer never merges across a space, then the whole text is counted and
corrected until the count is the one asked for. Nothing here knows a tokenizer: it is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from loadkit.core.errors import InputError
from loadkit.traffic.plan import Message

_WORD = re.compile(r"\s*\S+")
_FILLERS = ("so", "and", "the", "to", "a", "it", ",", "x", "e", "o")
_ROUNDS = 12


class TokenCounter(Protocol):
    """Counts tokens as the served tokenizer does."""

    def text(self, text: str) -> int:
        """Tokens of a text alone, without special tokens."""

    def prompt(self, text: str) -> int:
        """Tokens of a text that goes to /v1/completions: special tokens included."""

    def chat(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
        """Tokens of a whole chat prompt: template and generation prompt included."""


class ExactLengths:
    """Cuts texts to a number of tokens; remembers what words cost."""

    def __init__(self, counter: TokenCounter):
        self.counter = counter
        self._costs: dict[str, int] = {}
        self._alone: int | None = None
        self._least: dict[bytes, int] = {}
        self._fillers: list[str] | None = None

    def fit(self, pieces: Iterable[str], joint: str, num_tokens: int) -> str:
        """A text that begins with these pieces and counts `num_tokens` tokens by itself."""
        return self._settle(pieces, joint, num_tokens, self.counter.text, 0)

    def fit_prompt(
        self,
        pieces: Iterable[str],
        joint: str,
        num_tokens: int,
        before: Sequence[Message] = (),
        tools: Sequence[dict[str, Any]] = (),
    ) -> str:
        """The last user message of a chat prompt that counts `num_tokens` tokens in all."""

        def count(text: str) -> int:
            return self.counter.chat([*before, {"role": "user", "content": text}], tools)

        around = msgspec.json.encode((list(before), list(tools)))
        if around not in self._least:
            self._least[around] = count("")
        return self._settle(pieces, joint, num_tokens, count, self._least[around])

    def fit_text_prompt(
        self, pieces: Iterable[str], joint: str, num_tokens: int, front: str = ""
    ) -> str:
        """What follows `front` in a text prompt that counts `num_tokens` tokens in all."""

        def count(text: str) -> int:
            return self.counter.prompt(front + text)

        return self._settle(pieces, joint, num_tokens, count, count(""))

    def _settle(
        self,
        pieces: Iterable[str],
        joint: str,
        num_tokens: int,
        count: Callable[[str], int],
        least: int,
    ) -> str:
        """Correct the sum over words until the count is right. Where that goes back and forth, ever
        more of the end is made of one-token words."""
        words = _Words(pieces, joint)
        if num_tokens <= least:
            raise self._impossible(num_tokens, f"is left: what stands around it takes {least}")
        asked, tried, filled = num_tokens - least, set[int](), 0
        for _ in range(_ROUNDS):
            text = self._cut(words, max(0, asked), filled)
            missing = num_tokens - count(text)
            if not missing:
                return text
            tried.add(asked)
            asked += missing
            if asked in tried:
                filled += 1
        raise self._impossible(num_tokens, "was found")

    def _impossible(self, num_tokens: int, why: str) -> InputError:
        return InputError(
            f"no text of exactly {num_tokens} tokens {why}",
            where="tokenizer",
            remedy="ask for more tokens, or give the length in sentences",
        )

    def _cut(self, words: _Words, num_tokens: int, num_filled: int) -> str:
        """As many words as cost at most `num_tokens`, filled up with words of one token, of which
        there are at least `num_filled`."""
        taken: list[str] = []
        left = num_tokens
        for word in words:
            cost = self._cost(word) if taken else self.counter.text(word)
            if cost > left - num_filled:
                break
            taken.append(word)
            left -= cost
        fillers = self._one_token_words() if left else []
        taken += [fillers[number % len(fillers)] for number in range(left)]
        return "".join(taken)

    def _cost(self, word: str) -> int:
        cost = self._costs.get(word)
        if cost is None:
            cost = self._costs[word] = self._count_after_another(word)
        return cost

    def _count_after_another(self, text: str) -> int:
        if self._alone is None:
            self._alone = self.counter.text("a")
        return self.counter.text("a" + text) - self._alone

    def _one_token_words(self) -> list[str]:
        if self._fillers is None:
            self._fillers = [
                f" {word}" for word in _FILLERS if self._count_after_another(f" {word} {word}") == 2
            ]
        if not self._fillers:
            raise InputError(
                "none of the words to fill up with is one token",
                where="tokenizer",
                remedy="give the lengths in sentences",
            )
        return self._fillers


class _Words:
    """The words of an endless run of pieces, each with the space before it; can be gone through
    again, since a text is cut several times until it fits."""

    def __init__(self, pieces: Iterable[str], joint: str):
        self._pieces, self._joint = iter(pieces), joint
        self._words: list[str] = []

    def __iter__(self) -> Iterator[str]:
        at = 0
        while True:
            while at >= len(self._words):
                piece = next(self._pieces, None)
                if piece is None:
                    return
                self._words += _WORD.findall((self._joint if self._words else "") + piece)
            yield self._words[at]
            at += 1
