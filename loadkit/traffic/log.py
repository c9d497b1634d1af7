"""Logs as traffic: read prompts to send again, write a plan as a log.

Every format that `loadkit analyze` reads can be sent: text as messages or prompts, token ids as
they are, and logs that hold only block hashes as token ids in their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loadkit.core.errors import InputError
from loadkit.traces.lines import Place
from loadkit.traces.reading import Reading
from loadkit.traces.registry import TEXT_FORMATS, detect, other_than, read_trace, text_requests
from loadkit.traces.tables import is_hub
from loadkit.traces.texts import TextRequest
from loadkit.traffic.hashed_prompts import token_prompts
from loadkit.traffic.plan import Message, TrafficPlan
from loadkit.traffic.requests import requests_of

NOMINAL_LATENCY_S = 1.0
# It travels in a header, which servers limit to some 8 KiB in all.
MAX_SESSION_ID = 1024


@dataclass(frozen=True)
class LoggedPrompt:
    """One prompt to send: messages as logged, or a prompt of text or token ids; when it was sent,
    the most tokens it asked for, and whose it was. None: the log does not say."""

    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    timestamp_s: float | None = None
    max_tokens: int | None = None
    session: str | None = None
    prompt: str | tuple[int, ...] | None = None

    @property
    def key(self) -> bytes:
        """Equal only for identical prompts."""
        return msgspec.json.encode((self.messages, self.tools, self.prompt))


def read_prompts(
    path: str | Path,
    *,
    format: str = "auto",
    vocab_size: int = 32_000,
    seed: int = 0,
    notes: list[str] | None = None,
) -> list[LoggedPrompt]:
    """The prompts of a log, in the order given. InputError, with file:line for a row.

    Bodies of other APIs become chat messages, the system prompt among them. A row that only names
    some of its text cannot be sent and is refused.
    vocab_size, seed: for logs of hashes, whose blocks become token ids below it. notes: what rows
    hold that is not understood, and so not sent, or not counted is appended to it.
    """
    log = Path(path)
    if not is_hub(log) and not log.is_file():
        raise InputError("no such file", where=path, remedy="check traffic.log or traffic.corpus")
    name = detect([log]) if format == "auto" else format
    if name not in TEXT_FORMATS:
        return _hashed(log, name, vocab_size, seed)
    reading = Reading([log], recognise=other_than(name))
    rows, _ = text_requests(name, reading)
    prompts = [_checked(request, place) for place, request in rows]
    if not prompts:
        raise reading.empty()
    if notes is not None:
        notes += [f"of the log that is sent again: {told}" for told in reading.gaps.warnings()]
    return prompts


def _prompt(request: TextRequest) -> LoggedPrompt:
    ids = tuple(request.prompt) if isinstance(request.prompt, list) else request.prompt
    return LoggedPrompt(
        tuple(request.messages or ()),
        tuple(request.tools or ()),
        request.arrival_s,
        request.max_tokens,
        None if request.session is None else str(request.session),
        ids,
    )


def _checked(request: TextRequest, place: Place) -> LoggedPrompt:
    prompt = _prompt(request)
    if request.missing:
        raise place.error(
            f"the row cannot be sent as it was: {request.missing[0]}: not in the log",
            "delete the row, or log whole prompts",
        )
    if prompt.session is not None and len(prompt.session) > MAX_SESSION_ID:
        raise place.error(f"session_id is longer than {MAX_SESSION_ID} characters")
    if not prompt.messages and not prompt.prompt:
        raise place.error("the row has nothing to send", "delete the row")
    return prompt


def _hashed(log: Path, format: str, vocab_size: int, seed: int) -> list[LoggedPrompt]:
    trace = read_trace([log], format=format)
    times = trace.arrival_s
    prompts = []
    for row, ids in enumerate(token_prompts(trace, vocab_size, seed)):
        asked = int(trace.output_tokens[row])
        prompts.append(
            LoggedPrompt(
                timestamp_s=None if times is None else float(times[row]),
                max_tokens=asked if asked > 0 else None,
                session=None if trace.sessions_inferred else f"log-{int(trace.session[row]):06d}",
                prompt=ids,
            )
        )
    return prompts


def write_log(plan: TrafficPlan, path: Path) -> None:
    """Write a plan as the log that a service would have kept: recorded replies, planned times.

    A turn starts `think_s` after the previous reply; a reply takes a nominal second. Rows are
    ordered by time. Only turns with a recorded reply get a `response`.
    """
    rows = sorted(_rows(plan), key=lambda row: row["timestamp"])
    path.touch(mode=0o600)  # prompts are private
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _rows(plan: TrafficPlan) -> Iterator[dict[str, Any]]:
    for request in requests_of(plan, latency_s=NOMINAL_LATENCY_S):
        row: dict[str, Any] = {
            "timestamp": round(request.at_s, 3),
            "session_id": request.session.session,
        }
        if request.turn.prompt is None:
            row["messages"] = request.messages
        else:
            row["prompt"] = request.turn.prompt
        if request.session.tools:
            row["tools"] = list(request.session.tools)
        if request.turn.recorded_reply is not None:
            row["response"] = {
                "content": request.turn.recorded_reply,
                "finish_reason": "stop",
                "latency_s": NOMINAL_LATENCY_S,
            }
        yield row
