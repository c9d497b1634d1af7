"""Agents: a task, tools, and step after step of calls whose results grow the prompt."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.part import Part, one_of
from loadkit.profiles.sharing import SystemPrompts


class ToolSets(Part):
    """Sets of tool schemas; each session has one, and sessions with the same set share it."""

    count: int = Field(ge=0, le=256, description="tools in a set (0: no tools)")
    sets: int = Field(1, ge=1, le=1000, description="how many distinct sets there are")
    exponent: float = Field(1.0, ge=0, le=4, description="Zipf exponent of their popularity")
    source: str = Field(min_length=1, description="where these figures come from")


class SubAgents(Part):
    """Agents that a step sends off together; the session goes on when all have ended."""

    share: float = Field(ge=0, le=1, description="share of steps that send sub-agents")
    count: Distribution = Field(description="how many at once")
    steps: Distribution = Field(description="steps of each")
    history: Literal["own", "inherited"] = Field(
        "own",
        description="own: they begin with a system prompt that all sub-agents share; inherited: "
        "with all that their parent knows, so they share its whole prefix",
    )
    source: str = Field(min_length=1, description="where these figures come from")


class Compaction(Part):
    """Every so many steps the history is replaced by a summary: a mutation on purpose, counted."""

    every_steps: int = Field(ge=2, le=10_000, description="steps between two compactions")
    summary_sentences: int = Field(12, ge=1, le=4000, description="length of the summary")
    source: str = Field(min_length=1, description="where these figures come from")


class AgentTraffic(Part):
    """A session is one task: a request with tools, then one request a step with the step's result.

    Results are sent as user messages, which every endpoint takes: a `tool` message would need a
    reply with a matching tool call, which no live model promises.
    """

    counted_by: ClassVar[str] = "sessions"
    kind: Literal["agent"]
    corpus: str = Field(description="name of a corpus with tools and results")
    sessions: int | None = Field(
        None, ge=1, le=1_000_000, description="tasks in the run (a mixture decides its own)"
    )
    system_prompts: SystemPrompts
    tools: ToolSets
    steps: Distribution = Field(description="requests a task, the first one included")
    tool_s: Distribution = Field(description="time that a tool runs, between reply and result")
    task_sentences: Distribution | None = Field(None, description="length of the task")
    task_tokens: Distribution | None = Field(
        None, description="length of the task in tokens, exact, instead of sentences"
    )
    result_lines: Distribution | None = Field(None, description="length of a tool's result")
    result_tokens: Distribution | None = Field(
        None, description="length of a tool's result in tokens, exact, instead of lines"
    )
    result_growth: float = Field(
        1.0, ge=0.1, le=10, description="factor on the length of results from step to step"
    )
    retry_share: float = Field(
        0.0, ge=0, le=1, description="share of steps whose request is sent again as it was"
    )
    retry_source: str = Field("", description="where retry_share comes from")
    sub_agents: SubAgents | None = None
    compaction: Compaction | None = None
    replies: Literal["live", "recorded"] = Field("live", description="what is appended as reply")
    reasoning: Literal["stripped", "echoed"] = Field(
        "stripped", description="whether a live reply's reasoning is sent back with the history"
    )

    @model_validator(mode="after")
    def _one_length(self) -> AgentTraffic:
        one_of(self, "task_sentences", "task_tokens")
        one_of(self, "result_lines", "result_tokens")
        return self
