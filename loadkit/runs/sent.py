"""What was sent and answered, as a log in `openai` format that `loadkit analyze` reads."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadkit.runs.record import Record


def in_order_of_sending(records: Sequence[Record]) -> list[Record]:
    """The requests that were answered, by time of sending; ties keep their order."""
    answered = [record for record in records if record.outcome == "ok"]
    return sorted(answered, key=lambda r: r.intended_s if r.sent_s is None else r.sent_s)


def write_sent(answered: Sequence[Record], path: Path, *, token_ids: bool = True) -> None:
    """Write one line a request (gzip; the same records give the same bytes).

    token_ids False leaves the generated ids out, so that a reader tokenises the replies again.
    """
    path.touch(mode=0o600)  # prompts are private
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as log:
        for record in answered:
            log.write(msgspec.json.encode(_row(record, token_ids)) + b"\n")


def _row(record: Record, token_ids: bool) -> dict[str, Any]:
    """timestamp: seconds after the run's start. latency_s: send to the end of the answer. phase:
    only where it is not `measured`."""
    response: dict[str, Any] = {"finish_reason": record.finish_reason}
    if token_ids and record.reply_token_ids is not None:
        response["token_ids"] = record.reply_token_ids
    if "token_ids" in response or not record.reasoning:
        response["content"] = record.reply  # else what was computed is not to be had from text
    if record.sent_s is not None and record.completed_s is not None:
        response["latency_s"] = record.completed_s - record.sent_s
    row: dict[str, Any] = {
        "timestamp": record.sent_s,
        "session_id": record.session,
    }
    if record.phase != "measured":
        row["phase"] = record.phase
    if record.prompt is not None:
        row["prompt"] = record.prompt
    else:
        row["messages"] = record.messages
    if record.tools:
        row["tools"] = record.tools
    return {**row, "response": response}
