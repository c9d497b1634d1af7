"""One finished request, as a worker journals it and as the run folder keeps it."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from loadkit.client.answer import Outcome
from loadkit.client.decoder import ToolCall
from loadkit.client.exchange import USER_LEFT
from loadkit.client.foreign import MAX_ERROR_CHARS

OUTCOMES: tuple[str, ...] = get_args(Outcome)


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was sent and what came back. Times are seconds after the run's start, monotonic clock.

    `event_tokens`: tokens of each event whose gaps are in `gaps_s`, the first with them; empty: one
    each, or not told. Not reported is None, never 0: `cached_tokens`, `prompt_tokens` and `output_tokens` are the
    server's usage. `server_split` is a reference server's own split by cause, else None.
    Every scheduled request ends in exactly one `outcome`:

    - ok: a complete answer. http_error: a status of 400 or more (in `status`).
    - cut: the stream or connection ended early. timeout: a deadline of ours passed.
    - malformed: bytes that are no HTTP, SSE or JSON. cancelled: we hung up on purpose.
    - not_sent: never started (no connection, run stopped, or refused by the append-only guard).

    phase: only `measured` requests count in the run's figures. attempts: how often it was sent,
    more than 1 after retries that were asked for; the times are the last attempt's.
    retry_after_s: what a 429 or 503 asked for. prompt: what went to /v1/completions instead of
    messages. compacted: this request replaced its session's history on purpose. resent: the server
    closed a kept connection under the first copy, which it may have computed unseen. usage_doubt: what
    the server said of cached tokens that cannot be; `cached_tokens` is None then.

    prompt_token_ids: the prompt as the server says that it computed it, 4 bytes a token
    (`core.blocks.packed_tokens`), about as much as the text of `messages`; None: it did not say.
    reply_token_ids: as it was generated. tool_calls: what the reply calls, beside its text.
    """

    session: str
    turn: int
    name: str
    worker: int
    outcome: Outcome
    intended_s: float
    sent_s: float | None = None
    connect_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    completed_s: float | None = None
    gaps_s: list[float] = []
    event_tokens: list[int] = []
    status: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    server_split: dict[str, int] | None = None
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    reply: str = ""
    reply_token_ids: list[int] | None = None
    prompt_token_ids: bytes | None = None
    tool_calls: list[ToolCall] = []
    reasoning: str = ""
    prompt: str | list[int] | None = None
    phase: Literal["priming", "warmup", "measured"] = "measured"
    attempts: int = 1
    retry_after_s: float | None = None
    compacted: bool = False
    resent: bool = False
    usage_doubt: str | None = None

    def bare(self, error: str) -> Record:
        """Who, when and how often, without anything that a server said: `malformed` for `error`. A
        request that was never sent stays `not_sent`."""
        sent = self.outcome != "not_sent"
        return Record(
            session=self.session,
            turn=self.turn,
            name=self.name,
            worker=self.worker,
            outcome="malformed" if sent else "not_sent",
            intended_s=self.intended_s,
            sent_s=self.sent_s,
            connect_s=self.connect_s,
            first_token_s=self.first_token_s,
            last_token_s=self.last_token_s,
            status=self.status,
            error=error.encode("utf-8", "replace").decode()[:MAX_ERROR_CHARS],
            phase=self.phase,
            attempts=self.attempts,
            compacted=self.compacted,
            resent=self.resent,
        )

    @property
    def prompt_key(self) -> bytes:
        """Equal only for identical prompts; empty when nothing was sent, or nobody knows what."""
        if not self.messages and self.prompt is None:
            return b""
        return msgspec.json.encode((self.messages, self.tools, self.prompt))

    @property
    def ttft_s(self) -> float | None:
        """Start of send to first non-empty token; None without one."""
        if self.sent_s is None or self.first_token_s is None:
            return None
        return self.first_token_s - self.sent_s

    @property
    def e2e_s(self) -> float | None:
        """Intended send to the end of the answer (open loop counts from the intended time)."""
        return None if self.completed_s is None else self.completed_s - self.intended_s

    @property
    def tpot_s(self) -> float | None:
        """(last token - first token) / (output tokens - 1); None with fewer than two tokens."""
        if self.first_token_s is None or self.last_token_s is None or not self.output_tokens:
            return None
        if self.output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def schedule_delay_s(self) -> float | None:
        """Actual minus intended send; None after a retry, whose waiting the server asked for."""
        return None if self.sent_s is None or self.attempts > 1 else self.sent_s - self.intended_s

    @property
    def left(self) -> bool:
        """Whether the user hung up as planned: traffic, not a failure."""
        return self.outcome == "cancelled" and self.error == USER_LEFT
