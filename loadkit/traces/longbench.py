"""LongBench rows: a long `context` and a question about it, one request a row.

LongBench has the question under `input`, LongBench v2 under `question` with four choices. The context
comes first, as in the benchmark's own prompts, so questions about one context share it. No
timestamps, no sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from loadkit.traces.lines import Place
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import TextRequest

NAME = "longbench"


class Row(msgspec.Struct):
    """One question. Answers, lengths and difficulty are skipped."""

    NO_TEXT: ClassVar[frozenset[str]] = frozenset(
        ["answers", "answer", "length", "difficulty", "domain", "sub_domain", "all_classes", "_id"]
    )

    context: str
    input: str | None = None
    question: str | None = None
    choice_A: str | None = None
    choice_B: str | None = None
    choice_C: str | None = None
    choice_D: str | None = None
    id: Name | None = msgspec.field(default=None, name="_id")

    @property
    def choices(self) -> list[str]:
        given = {"A": self.choice_A, "B": self.choice_B, "C": self.choice_C, "D": self.choice_D}
        return [f"({letter}) {text}" for letter, text in given.items() if text is not None]


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return "context" in row and ("input" in row or "question" in row)


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The questions, one a row."""
    for place, row in reading.rows(Row):
        with reading.row():
            asked = row.input if row.input is not None else row.question
            if asked is None:
                raise place.error("the row has neither `input` nor `question`")
            text = "\n\n".join([row.context, "\n".join([asked, *row.choices])])
            message = {"role": "user", "content": text}
            yield place, TextRequest(messages=[message], request_id=row.id)
