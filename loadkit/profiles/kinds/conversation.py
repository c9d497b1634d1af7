"""Conversations: several turns of one person, each going on from the reply before."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.part import Part, one_of
from loadkit.profiles.sharing import SystemPrompts


class ConversationTraffic(Part):
    """Multi-turn, append-only: history is never rewritten; replies are appended as they come."""

    counted_by: ClassVar[str] = "sessions"
    kind: Literal["conversation"]
    corpus: str = Field(description="name of a corpus")
    sessions: int | None = Field(
        None, ge=1, le=1_000_000, description="conversations in the run (a mixture decides its own)"
    )
    system_prompts: SystemPrompts
    turns: Distribution
    think_s: Distribution
    message_sentences: Distribution | None = Field(None, description="length of users' messages")
    message_tokens: Distribution | None = Field(
        None, description="length of users' messages in tokens, exact, instead of sentences"
    )
    repeat_share: float = Field(
        0.0, ge=0, le=1, description="share of sessions that ask one of a few common questions"
    )
    repeat_questions: int = Field(4, ge=1, description="how many common questions there are")
    repeat_source: str = Field("", description="where repeat_share comes from")
    replies: Literal["live", "recorded"] = Field("live", description="what is appended as reply")
    reasoning: Literal["stripped", "echoed"] = Field(
        "stripped",
        description="whether a live reply's reasoning is sent back with the history: stripping it "
        "breaks the prefix chain at the reply, as most chat clients do",
    )

    @model_validator(mode="after")
    def _one_length(self) -> ConversationTraffic:
        one_of(self, "message_sentences", "message_tokens")
        return self
