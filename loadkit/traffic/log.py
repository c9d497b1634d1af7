"""Logs of chat requests as traffic: read prompts to send again, write a plan as a log."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from loadkit.core.errors import FormatError, InputError
from loadkit.traffic.plan import Message, TrafficPlan

NOMINAL_LATENCY_S = 1.0
# Far above any prompt: a guard against a file that is no JSONL at all, or a gzip bomb.
MAX_LINE_BYTES = 128 * 1024 * 1024
# It travels in a header, which servers limit to some 8 KiB in all.
MAX_SESSION_ID = 1024

Seconds = Annotated[float, msgspec.Meta(ge=-1e19, le=1e19)]  # nanoseconds since 1970 fit


@dataclass(frozen=True)
class LoggedPrompt:
    """One prompt to send: messages as logged, when it was sent, the most tokens it asked for, and
    whose it was. None: the log does not say."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    timestamp_s: float | None = None
    max_tokens: int | None = None
    session: str | None = None

    @property
    def key(self) -> bytes:
        """Equal only for identical prompts."""
        return msgspec.json.encode((self.messages, self.tools))


class _Row(msgspec.Struct):
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    timestamp: Seconds | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31)] | None = None
    session_id: Annotated[str, msgspec.Meta(max_length=MAX_SESSION_ID)] | int | None = None

    def prompt(self) -> LoggedPrompt:
        session = None if self.session_id is None else str(self.session_id)
        tools = tuple(self.tools or ())
        return LoggedPrompt(tuple(self.messages), tools, self.timestamp, self.max_tokens, session)


def read_prompts(path: str | Path) -> list[LoggedPrompt]:
    """Read an OpenAI-style JSONL log (optionally .gz) as prompts. FormatError with file:line."""
    prompts = []
    for number, line in enumerate(_lines(Path(path)), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_Row)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            not_utf8 = isinstance(error, UnicodeDecodeError)
            raise FormatError(
                f"not a chat request: {'not UTF-8' if not_utf8 else error}",
                path=path,
                line=number,
                remedy="each line is a request body with `messages`",
            ) from error
        prompts.append(row.prompt())
    if not prompts:
        raise InputError("no request in the log", where=path, remedy="give a log with requests")
    return prompts


def _lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():
        raise InputError("no such file", where=path, remedy="check traffic.log")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield from iter(lambda: file.readline(MAX_LINE_BYTES), b"")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read: {error}", where=path, remedy="is it whole?") from error


def write_log(plan: TrafficPlan, path: Path) -> None:
    """Write a plan as the log that a service would have kept: recorded replies, planned times.

    A turn starts `think_s` after the previous reply; a reply takes a nominal second. Rows are
    ordered by time. Only turns with a recorded reply get a `response`.
    """
    rows: list[dict[str, Any]] = []
    for session in plan.sessions:
        history: list[Message] = []
        now = session.start_s
        for turn in session.turns:
            now += turn.think_s
            history.extend(turn.messages)
            row: dict[str, Any] = {
                "timestamp": round(now, 3),
                "session_id": session.session,
                "messages": list(history),
            }
            if session.tools:
                row["tools"] = list(session.tools)
            if turn.recorded_reply is not None:
                row["response"] = {
                    "content": turn.recorded_reply,
                    "finish_reason": "stop",
                    "latency_s": NOMINAL_LATENCY_S,
                }
                history.append({"role": "assistant", "content": turn.recorded_reply})
            now += NOMINAL_LATENCY_S
            rows.append(row)
    rows.sort(key=lambda row: row["timestamp"])
    path.touch(mode=0o600)  # prompts are private
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
