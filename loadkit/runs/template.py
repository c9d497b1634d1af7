"""Does a tokenizer folder give the prompts that the server computes? Told from the first answers.

The server's own token ids of a prompt, or else its count of prompt tokens, against what the folder's
tokenizer and chat template make of the messages that were sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from loadkit.core.blocks import unpacked_tokens
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.units import plural
from loadkit.runs.record import Record

# Answers compared of each kind; a template that differs does so in every prompt of a kind.
NUM_OF_A_KIND = 3


class Difference(msgspec.Struct, frozen=True):
    """The first prompt that differs. first_token: index of the first token that does; None where the
    server said only how many there are."""

    session: str
    turn: int
    server_tokens: int
    local_tokens: int
    first_token: int | None


class TemplateCheck(msgspec.Struct, frozen=True):
    """How many prompts were compared, by what the server said of them, and how many differ."""

    compared: int
    by: Literal["token_ids", "usage"]
    different: int
    first: Difference | None = None

    @property
    def message(self) -> str:
        """What differs, in words; "" where nothing does."""
        return "" if self.first is None else _sentence(self.first)


class TemplateComparison:
    """Compares answers as they come, the first of each kind; `result` is what was found so far.

    A kind of request: its name in the profile, chat or text, with tools or without, first turn or
    later: what a template does differently goes by those.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._seen: Counter[Any] = Counter()
        self._by_ids = self._different = 0
        self._first: Difference | None = None

    @property
    def result(self) -> TemplateCheck | None:
        """None as long as there was nothing to compare."""
        compared = self._seen.total()
        if not compared:
            return None
        by: Literal["token_ids", "usage"] = "token_ids" if self._by_ids else "usage"
        return TemplateCheck(compared, by, self._different, self._first)

    def add(self, records: Iterable[Record]) -> None:
        """Look at more answers. Prompts sent as token ids, or that this template refuses, say nothing."""
        for record in records:
            if record.outcome != "ok" or not (record.messages or isinstance(record.prompt, str)):
                continue
            kind = record.name, bool(record.messages), bool(record.tools), record.turn > 0
            told = record.prompt_token_ids is not None or record.prompt_tokens is not None
            if told and self._seen[kind] < NUM_OF_A_KIND:
                self._compare(record, kind)

    def _compare(self, record: Record, kind: Any) -> None:
        try:
            ours = self._local_ids(record)
        except InputError:
            return
        self._seen[kind] += 1
        if record.prompt_token_ids is not None:
            self._by_ids += 1
            theirs = unpacked_tokens(record.prompt_token_ids)
            if theirs == ours:
                return
            num, at = len(theirs), _first_difference(theirs, ours)
        else:
            assert record.prompt_tokens is not None
            if record.prompt_tokens == len(ours):
                return
            num, at = record.prompt_tokens, None
        self._different += 1
        if self._first is None:
            self._first = Difference(record.session, record.turn, num, len(ours), at)

    def _local_ids(self, record: Record) -> list[int]:
        if isinstance(record.prompt, str):
            return self._tokenizer.encode(record.prompt)
        return self._tokenizer.encode_chat(record.messages, record.tools)


def _first_difference(left: list[int], right: list[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _sentence(found: Difference) -> str:
    more = found.server_tokens - found.local_tokens
    how = (
        f"has {plural(abs(more), 'token')} {'more' if more > 0 else 'fewer'} than"
        if more
        else "has other tokens than"
    )
    text = f"the server's prompt {how} this tokenizer's template gives"
    if more:
        text += f" ({found.server_tokens:,} and {found.local_tokens:,})"
    if found.first_token is not None:
        text += f": first difference at token {found.first_token:,}"
    return f"{text}. Its tokenizer or chat template is another one"
