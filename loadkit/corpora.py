"""Corpora: texts of our own, made from a declared grammar and seed, so they carry no one's data.

A corpus is a folder with corpus.yaml (licence, seed, sha256 of a sample) and grammar.yaml. The
grammar is data, never code. Same seed, same bytes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadkit.core.errors import InputError
from loadkit.profiles import data_root, load_yaml

SAMPLE_MESSAGES = 1000
MAX_DEPTH = 12
_SLOT = re.compile(r"\{(?:int:(\d+)-(\d+)|([a-z_]+))\}")
REQUIRED_SYMBOLS = (
    "system",
    "system_rule",
    "message_open",
    "sentence",
    "question",
    "faq",
    "reply",
)


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


@dataclass(frozen=True)
class Corpus:
    """Makes texts from a grammar; every method takes the random generator that decides."""

    card: CorpusCard
    grammar: dict[str, list[str]] = field(repr=False)

    def expand(self, symbol: str, rng: Random, depth: int = 0) -> str:
        """One random expansion of a symbol."""
        if depth > MAX_DEPTH:
            raise InputError(f"symbol {symbol!r} expands without end", where=self.card.name)

        def fill(slot: re.Match[str]) -> str:
            low, high, name = slot.groups()
            return (
                str(rng.randint(int(low), int(high))) if low else self.expand(name, rng, depth + 1)
            )

        return _SLOT.sub(fill, rng.choice(self.grammar[symbol]))

    def system_prompt(self, rng: Random, sentences: int) -> str:
        rules = (self.expand("system_rule", rng) for _ in range(sentences - 1))
        return " ".join([self.expand("system", rng), *rules])

    def user_message(self, rng: Random, sentences: int) -> str:
        """Opening, statements and a closing question: `sentences` in all (at least two)."""
        body = (self.expand("sentence", rng) for _ in range(sentences - 2))
        return " ".join([self.expand("message_open", rng), *body, self.expand("question", rng)])

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

    def reply(self, rng: Random) -> str:
        return self.expand("reply", rng)

    def sample_sha256(self) -> str:
        """sha256 of the sample that corpus.yaml declares."""
        rng = Random(self.card.seed)
        sample = "\n".join(self.user_message(rng, 3) for _ in range(SAMPLE_MESSAGES))
        return hashlib.sha256(sample.encode()).hexdigest()


def names() -> list[str]:
    """Names of the bundled corpora."""
    return sorted(path.parent.name for path in data_root("corpora").glob("*/corpus.yaml"))


def load(name_or_path: str) -> Corpus:
    """Load a corpus by bundled name or folder. InputError if it is missing or does not fit."""
    for folder in (Path(name_or_path), data_root("corpora") / name_or_path):
        if (folder / "corpus.yaml").is_file():
            break
    else:
        raise InputError(
            "no such corpus",
            where=name_or_path,
            remedy=f"one of: {', '.join(names())}, or a folder",
        )
    try:
        card = CorpusCard.model_validate(load_yaml(folder / "corpus.yaml"))
    except ValidationError as error:
        raise InputError(str(error.errors()[0]["msg"]), where=folder / "corpus.yaml") from error
    return Corpus(card, _checked_grammar(load_yaml(folder / "grammar.yaml"), folder))


def _checked_grammar(raw: object, folder: Path) -> dict[str, list[str]]:
    where = folder / "grammar.yaml"
    if not isinstance(raw, dict):
        raise InputError("a grammar is a mapping of symbols to lists of texts", where=where)
    for symbol in REQUIRED_SYMBOLS:
        if symbol not in raw:
            raise InputError(f"symbol {symbol!r} is missing", where=where)
    for symbol, lines in raw.items():
        if not isinstance(lines, list) or not lines or not all(isinstance(x, str) for x in lines):
            raise InputError(f"{symbol}: expected a list of texts", where=where)
        for line in lines:
            for slot in _SLOT.finditer(line):
                if slot[3] and slot[3] not in raw:
                    raise InputError(f"{symbol}: unknown symbol {slot[3]!r}", where=where)
    return raw
