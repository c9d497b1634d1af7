"""What every request asks for, and what its sender does when it goes wrong or takes too long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from loadkit.profiles.distribution import Distribution
from loadkit.profiles.part import Part


class Retries(Part):
    """What a client of this service does when it is turned away; each attempt is counted."""

    max_retries: int = Field(0, ge=0, le=10, description="further attempts after the first")
    statuses: tuple[int, ...] = Field((429, 503), description="answers that are tried again")
    backoff_s: float = Field(
        1.0, gt=0, le=600, description="first wait without a Retry-After; doubles each time"
    )
    max_wait_s: float = Field(60.0, gt=0, le=3600, description="a longer Retry-After ends it")


class Leaving(Part):
    """Users who hang up in the middle of an answer: traffic, not a fault. It ends their session."""

    share: float = Field(0.0, ge=0, le=1, description="share of requests that are left")
    after_s: Distribution
    source: str = Field(min_length=1, description="where these figures come from")


class Request(Part):
    """What every request asks for."""

    max_tokens: Distribution
    temperature: float = Field(0.0, ge=0, le=2)
    ignore_eos: bool = Field(False, description="ask the server to go on after the end token")
    exact_output: bool = Field(
        False, description="ask for exactly max_tokens of output, where the server can"
    )
    api: Literal["chat", "completions", "messages"] = Field(
        "chat", description="OpenAI chat, OpenAI completions, or Anthropic-style messages"
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="the name under which chats ask for max_tokens: some models of OpenAI's take the"
        " longer one alone",
    )
    ask_usage: bool = Field(
        True,
        description="ask for usage at a stream's end (stream_options); off for servers that refuse"
        " it: then tokens are counted only where usage comes all the same",
    )
    timeout_s: float = Field(
        120.0, gt=0, le=1e6, description="deadline of one request, send to last byte"
    )
    connect_timeout_s: float = Field(10.0, gt=0, le=1e6, description="deadline of connecting")
    first_token_timeout_s: float | None = Field(
        None, gt=0, le=1e6, description="deadline of the first token (None: timeout_s alone)"
    )
    idle_timeout_s: float | None = Field(
        None, gt=0, le=1e6, description="longest silence within an answer (None: no limit)"
    )
    retries: Retries = Retries()
    leaving: Leaving | None = None
