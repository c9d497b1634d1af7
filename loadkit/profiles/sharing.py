"""What sessions have in common on purpose: system prompts, and questions asked word for word."""

from __future__ import annotations

from pydantic import Field, model_validator

from loadkit.profiles.part import Part


class SystemPrompts(Part):
    """System prompts that sessions share, with Zipf popularity: share of rank k ~ 1 / k**exponent.

    A prompt's length is given in sentences, or exactly in tokens of the served tokenizer.
    """

    count: int = Field(ge=1, le=10_000, description="how many distinct system prompts")
    exponent: float = Field(1.0, ge=0, le=4, description="Zipf exponent of their popularity")
    sentences: int = Field(8, ge=1, le=4000, description="length of each, in sentences")
    tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="length of each text in tokens, instead of sentences"
    )
    source: str = Field(min_length=1, description="where these figures come from")

    @model_validator(mode="after")
    def _one_length(self) -> SystemPrompts:
        if self.tokens is not None and "sentences" in self.model_fields_set:
            raise ValueError("give `sentences` or `tokens`, not both")
        return self
