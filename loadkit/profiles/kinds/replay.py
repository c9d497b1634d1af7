"""Prompts sent again: a log as it was, or a few prompts over and over."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.kinds.corpus import TooLong
from loadkit.profiles.part import Part, Wrap


class ReplayTraffic(Part):
    """Send logged or drawn prompts again: a log with its timestamps, or a few prompts repeated.

    Text logs are sent as messages (or `prompt`); logs of token ids, and logs that hold only block
    hashes, through /v1/completions as token ids: equal hashes become equal tokens.
    """

    counted_by: ClassVar[str | None] = None
    kind: Literal["replay"]
    log: str | None = Field(
        None, description="a log in any format of `loadkit analyze`, or hf:NAME; None: see `corpus`"
    )
    format: str = Field("auto", description="the log's format; auto: from its first rows")
    corpus: str | None = Field(None, description="corpus to draw prompts from when there is no log")
    distinct_prompts: int | None = Field(
        None, ge=1, description="use only so many prompts (None: every row of the log)"
    )
    requests: int | None = Field(
        None, ge=1, description="requests in the run (None: each prompt once)"
    )
    message_sentences: Distribution | None = Field(None, description="of prompts of the corpus")
    message_tokens: Distribution | None = Field(
        None, description="of prompts of the corpus, in tokens, exact, instead of sentences"
    )
    order: Literal["log", "shuffled"] = Field(
        "log", description="shuffled: rows in random order, those of one session in their own"
    )
    speed: float = Field(1.0, gt=0, le=1e6, description="factor on the log's timestamps")
    vocab_size: int = Field(
        32_000,
        ge=2,
        le=10_000_000,
        description="ids that a log of hashes is written with stay below it",
    )
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="longest prompt to send (None: no limit); text needs the tokenizer"
    )
    too_long: TooLong = Field("refuse", description="what to do with longer ones; counted")
    wrap: Wrap = Field(
        "refuse", description="sending a prompt again is a wrap: allow it only on purpose"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ReplayTraffic:
        if (self.log is None) == (self.corpus is None):
            raise ValueError("replay needs exactly one of `log` and `corpus`")
        if self.message_sentences is not None and self.message_tokens is not None:
            raise ValueError("give `message_sentences` or `message_tokens`, not both")
        return self
