"""Batch evaluation: the same suite of prompts sent several times, the test that makes mirages."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.part import Part, one_of


class BatchTraffic(Part):
    """A suite of `suite` prompts under one fixed instruction, sent `runs` times.

    From the second run on every prompt is one that was sent before: its hits are replay. That is
    what an A/B evaluation does on purpose, so its wraps are allowed, and counted.
    """

    counted_by: ClassVar[str] = "runs"
    kind: Literal["batch"]
    corpus: str = Field(description="name of a corpus")
    suite: int = Field(ge=1, le=1_000_000, description="distinct prompts in the suite")
    runs: int | None = Field(
        None, ge=1, le=10_000, description="times that it is sent (a mixture decides its own)"
    )
    order: Literal["same", "shuffled"] = Field("same", description="of the prompts in each run")
    instruction_sentences: int | None = Field(
        None, ge=1, le=4000, description="length of the instruction that all prompts begin with"
    )
    instruction_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="its length in tokens, exact, instead of sentences"
    )
    item_sentences: Distribution | None = Field(None, description="length of what is to be judged")
    item_tokens: Distribution | None = Field(
        None, description="its length in tokens, exact, instead of sentences"
    )

    @model_validator(mode="after")
    def _one_length(self) -> BatchTraffic:
        one_of(self, "instruction_sentences", "instruction_tokens")
        one_of(self, "item_sentences", "item_tokens")
        return self
