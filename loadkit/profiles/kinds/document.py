"""Questions about documents: a long fixed text in front, short questions behind it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.part import Part, one_of


class Documents(Part):
    """Documents that many sessions ask about, with Zipf popularity."""

    count: int = Field(ge=1, le=100_000, description="how many documents there are")
    exponent: float = Field(1.0, ge=0, le=4, description="Zipf exponent of their popularity")
    sentences: Distribution | None = Field(None, description="length of each, in sentences")
    tokens: Distribution | None = Field(
        None, description="length of each in tokens, exact, instead of sentences"
    )
    source: str = Field(min_length=1, description="where these figures come from")

    @model_validator(mode="after")
    def _one_length(self) -> Documents:
        one_of(self, "sentences", "tokens")
        return self


class DocumentTraffic(Part):
    """Each session asks about one document, which stands whole in the prompt before the question.

    Sessions about the same document share it; the questions of one session follow each other
    append-only. Instruction and document are the system message.
    """

    counted_by: ClassVar[str] = "sessions"
    kind: Literal["document"]
    corpus: str = Field(description="name of a corpus with documents")
    sessions: int | None = Field(
        None, ge=1, le=1_000_000, description="sessions in the run (a mixture decides its own)"
    )
    documents: Documents
    instruction_sentences: int = Field(
        3, ge=1, le=400, description="length of the instruction before the document, for all alike"
    )
    questions: Distribution = Field(description="questions a session")
    question_sentences: Distribution | None = Field(None, description="length of a question")
    question_tokens: Distribution | None = Field(
        None, description="length of a question in tokens, exact, instead of sentences"
    )
    think_s: Distribution
    replies: Literal["live", "recorded"] = Field("live", description="what is appended as reply")

    @model_validator(mode="after")
    def _one_length(self) -> DocumentTraffic:
        one_of(self, "question_sentences", "question_tokens")
        return self
