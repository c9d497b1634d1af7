"""Randomized single-turn prompts, each sent once."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.part import Part, Wrap
from loadkit.profiles.sharing import SystemPrompts

TooLong = Literal["refuse", "truncate", "drop"]


class CorpusTraffic(Part):
    """Randomized single-turn prompts drawn from a corpus without repetition."""

    counted_by: ClassVar[str] = "requests"
    kind: Literal["corpus"]
    corpus: str = Field(
        description="name or folder of a corpus, a JSONL or Parquet file of requests in any log "
        "format that carries text (`loadkit synthesize` writes such), or hf:NAME[:split]"
    )
    requests: int | None = Field(
        None, ge=1, le=10_000_000, description="requests in the run (a mixture decides its own)"
    )
    system_prompts: SystemPrompts | None = Field(None, description="shared; None: no system prompt")
    message_sentences: Distribution | None = Field(None, description="length of each message")
    message_tokens: Distribution | None = Field(
        None, description="length of each message in tokens, exact, instead of sentences"
    )
    prompt_tokens: Distribution | None = Field(
        None,
        description="length of each whole prompt in tokens, chat template and system prompt "
        "included, exact, instead of the message's",
    )
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="longest prompt to send (None: no limit); needs the tokenizer"
    )
    too_long: TooLong = Field("refuse", description="what to do with longer ones; counted")
    sharing: Literal["refuse", "allow"] = Field(
        "refuse",
        description="whether prompts of a file may begin alike (an instruction that all of them "
        "have): where a tokenizer is given, undeclared sharing is refused before sending",
    )
    wrap: Wrap = Field(
        "refuse", description="what to do when a finite corpus runs out (a wrap makes replay)"
    )

    @property
    def is_file(self) -> bool:
        """Whether the prompts come from a file or data set, with lengths of their own."""
        return is_prompt_file(self.corpus)

    @model_validator(mode="after")
    def _one_length(self) -> CorpusTraffic:
        names = ("message_sentences", "message_tokens", "prompt_tokens")
        given = sum(getattr(self, name) is not None for name in names)
        if given > 1 or (not given and not self.is_file):
            raise ValueError(f"exactly one of {', '.join(f'`{name}`' for name in names)} is needed")
        if self.is_file and self.system_prompts is not None:
            raise ValueError("`system_prompts` go with a generated corpus, not with a file")
        return self


def is_prompt_file(name: str) -> bool:
    """Whether a corpus is named by a file of prompts or a data set, not by a generator's folder."""
    plain = name.removesuffix(".gz").removesuffix(".zst")
    return name.startswith("hf:") or plain.endswith((".jsonl", ".json", ".parquet"))
