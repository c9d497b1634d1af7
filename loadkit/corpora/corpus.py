"""A corpus: texts of our own, made from a declared grammar and seed, so they carry no one's data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from loadkit.core.errors import InputError
from loadkit.corpora.grammar import Grammar

SAMPLE_MESSAGES = 1000
SAMPLE_OTHERS = 20
# Two texts whose first characters differ share at most 19 of them: some 5 tokens, well below a block.
OPENING_CHARS = 20
PIECE_TRIES = 8  # a sentence said already in the same text is drawn again so often
What = Literal["message", "system", "document", "instruction", "item", "result", "summary"]


class Form(NamedTuple):
    """How a text is put together: an opening, any number of body pieces, perhaps a closing."""

    opening: str
    body: str
    closing: str | None = None
    joint: str = " "


FORMS: dict[str, Form] = {
    "message": Form("message_open", "sentence", "question"),
    "system": Form("system", "system_rule"),
    "document": Form("document_open", "document_sentence"),
    "instruction": Form("instruction_open", "instruction_rule"),
    "item": Form("item_open", "item_sentence"),
    "result": Form("result_open", "result_line", joint="\n"),
    "summary": Form("summary_open", "summary_line"),
}
TOOL_SYMBOLS = ("tool_name", "tool_about", "param_name", "param_about")


class Opening(str):
    """How a text begins, and the language that the rest of it keeps to; None: the corpus has one."""

    language: str | None

    def __new__(cls, text: str, language: str | None) -> Opening:
        made = super().__new__(cls, text)
        made.language = language
        return made


class Statistics(BaseModel):
    """Counted over the sample messages: what a reader may hold the corpus against."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    words_per_message: float
    distinct_words: int
    distinct_openings: int = Field(description="among the first 20 characters of 1,000 messages")


class CorpusCard(BaseModel):
    """corpus.yaml"""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_: Literal["loadkit.corpus/1"] = Field(alias="schema")
    name: str
    summary: str
    licence: str
    generator: Literal["grammar"]
    seed: int
    sample_sha256: str
    statistics: Statistics | None = None
    languages: tuple[str, ...] = Field(
        (), description="suffixes of symbols: `sentence_ru` in place of `sentence` (none: one)"
    )


@dataclass(frozen=True)
class Corpus:
    """Makes texts from a grammar; every method takes the random generator that decides."""

    card: CorpusCard
    grammar: dict[str, list[str]] = field(repr=False)

    @cached_property
    def _cut(self) -> Grammar:
        return Grammar(self.grammar, self.card.name)

    def expand(self, symbol: str, rng: Random, language: str | None = None) -> str:
        """One random expansion of a symbol, of its form in `language` where there is one.
        InputError if the corpus has none of that name."""
        if f"{symbol}_{language}" in self._cut:
            symbol = f"{symbol}_{language}"
        if symbol not in self._cut:
            raise InputError(
                f"the corpus has no `{symbol}`, which this kind of traffic needs",
                where=self.card.name,
                remedy="choose another traffic.corpus: `loadkit corpora` lists them",
            )
        return self._cut.expand(symbol, rng)

    def language(self, number: int) -> str | None:
        """Language of the system prompt of this number, and of what is said under it; None: the
        corpus has but one."""
        languages = self.card.languages
        return languages[number % len(languages)] if languages else None

    def _drawn_language(self, rng: Random) -> str | None:
        return rng.choice(self.card.languages) if self.card.languages else None

    def opening(self, what: What, rng: Random, language: str | None = None) -> Opening:
        """How such a text may begin. language: None draws one."""
        language = language or self._drawn_language(rng)
        return Opening(self.expand(FORMS[what].opening, rng, language), language)

    def pieces(self, what: What, rng: Random, opening: str | None = None) -> Iterator[str]:
        """An opening (the one given, if any), then body pieces without end, in its language. None is
        said twice, unless the corpus seems to have no more."""
        form, said = FORMS[what], set[str]()
        begun = self.opening(what, rng) if opening is None else opening
        language = getattr(begun, "language", None)
        yield begun
        while True:
            for _ in range(PIECE_TRIES):
                piece = self.expand(form.body, rng, language)
                if piece not in said:
                    break
            said.add(piece)
            yield piece

    def text(self, what: What, rng: Random, num_pieces: int, opening: str | None = None) -> str:
        """A text of `num_pieces` sentences or lines, opening and closing among them."""
        form = FORMS[what]
        bodies = max(0, num_pieces - 1 - bool(form.closing))
        made = list(islice(self.pieces(what, rng, opening), 1 + bodies))
        if form.closing:
            made.append(self.expand(form.closing, rng, getattr(made[0], "language", None)))
        return form.joint.join(made).replace("\n ", "\n").rstrip()

    def system_prompt(self, rng: Random, sentences: int) -> str:
        return self.text("system", rng, sentences)

    def user_message(self, rng: Random, sentences: int) -> str:
        """Opening, statements and a closing question: `sentences` in all (at least two)."""
        return self.text("message", rng, sentences)

    def common_questions(self, count: int) -> list[str]:
        """The first `count` questions that many users ask word for word."""
        questions = self.grammar["faq"]
        if count > len(questions):
            raise InputError(
                f"{count} common questions asked for, the corpus has {len(questions)}",
                where=self.card.name,
                remedy="lower traffic.repeat_questions",
            )
        return questions[:count]

    def reply(self, rng: Random, language: str | None = None) -> str:
        return self.expand("reply", rng, language or self._drawn_language(rng))

    def tool(self, rng: Random, number: int) -> dict[str, Any]:
        """An OpenAI function schema; `number` keeps the names of a set apart."""
        params = {
            self.expand("param_name", rng): {
                "type": rng.choice(("string", "integer", "boolean")),
                "description": self.expand("param_about", rng),
            }
            for _ in range(rng.randint(1, 4))
        }
        function = {
            "name": f"{self.expand('tool_name', rng)}_{number}",
            "description": self.expand("tool_about", rng),
            "parameters": {"type": "object", "properties": params, "required": list(params)[:1]},
        }
        return {"type": "function", "function": function}

    def makes(self, what: str) -> bool:
        """Whether the corpus has texts of this form, or `tools`."""
        symbols = TOOL_SYMBOLS if what == "tools" else (FORMS[what].opening, FORMS[what].body)
        return all(self._has(symbol) for symbol in symbols)

    def _has(self, symbol: str) -> bool:
        """Whether it can be expanded, in every language that the corpus has."""
        return symbol in self._cut or (
            bool(self.card.languages)
            and all(f"{symbol}_{language}" in self._cut for language in self.card.languages)
        )

    def kinds(self) -> list[str]:
        """Names of what it has texts for."""
        return [what for what in (*FORMS, "tools") if self.makes(what)]

    def check(self) -> None:
        """InputError unless grammar and card belong together."""
        remedy = "the grammar was changed: put the new value into corpus.yaml"
        if (found := self.sample_sha256()) != self.card.sample_sha256:
            raise InputError(
                f"the sample's sha256 is {found}, corpus.yaml says {self.card.sample_sha256}",
                where=self.card.name,
                remedy=remedy,
            )
        if self.card.statistics not in (None, self.statistics()):
            raise InputError(
                f"counted: {self.statistics()!r}, corpus.yaml says otherwise",
                where=self.card.name,
                remedy=remedy,
            )

    def sample_sha256(self) -> str:
        """sha256 of the sample that corpus.yaml declares: 1,000 messages of three sentences, then
        20 texts of ten pieces of each other form that the corpus has, and 20 tools."""
        rng = Random(self.card.seed)
        sample = [self.user_message(rng, 3) for _ in range(SAMPLE_MESSAGES)]
        others: tuple[What, ...] = ("document", "instruction", "item", "result", "summary")
        for what in others:
            if self.makes(what):
                sample += [self.text(what, rng, 10) for _ in range(SAMPLE_OTHERS)]
        if self.makes("tools"):
            sample += [str(self.tool(rng, number)) for number in range(SAMPLE_OTHERS)]
        return hashlib.sha256("\n".join(sample).encode()).hexdigest()

    def statistics(self) -> Statistics:
        """Counted over the sample's messages."""
        rng = Random(self.card.seed)
        messages = [self.user_message(rng, 3) for _ in range(SAMPLE_MESSAGES)]
        texts = [message.split() for message in messages]
        return Statistics(
            words_per_message=round(sum(map(len, texts)) / len(texts), 1),
            distinct_words=len({word for text in texts for word in text}),
            distinct_openings=len({message[:OPENING_CHARS] for message in messages}),
        )
