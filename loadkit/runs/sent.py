"""What was sent and answered, as a log in `openai` format that `loadkit analyze` reads."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadkit.core.blocks import unpacked_tokens
from loadkit.runs.record import Record


def in_order_of_sending(records: Sequence[Record]) -> list[Record]:
    """The requests that were answered, by time of sending; ties keep their order."""
    answered = [record for record in records if record.outcome == "ok"]
    return sorted(answered, key=lambda r: r.intended_s if r.sent_s is None else r.sent_s)


def num_with_prompt_ids(answered: Sequence[Record]) -> int:
    """Answers that came with the server's own token ids of the prompt."""
    return sum(record.prompt_token_ids is not None for record in answered)


def write_sent(answered: Sequence[Record], path: Path, *, token_ids: bool = True) -> None:
    """Write one line a request (gzip; the same records give the same bytes).

    The server's token ids of the prompts stand in it if all answers came with them: prompts of two
    sources would not match each other. token_ids False leaves all ids out, so that a reader tokenises
    prompts and replies again.
    """
    prompt_ids = token_ids and num_with_prompt_ids(answered) == len(answered)
    path.touch(mode=0o600)  # prompts are private
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as log:
        for record in answered:
            log.write(msgspec.json.encode(_row(record, token_ids, prompt_ids)) + b"\n")


def reply_ids(record: Record) -> list[int] | None:
    """Generated token ids; [] for a reply that the server counts no token in, None: not known."""
    return [] if record.output_tokens == 0 and not record.reply else record.reply_token_ids


def _row(record: Record, token_ids: bool, prompt_ids: bool) -> dict[str, Any]:
    """timestamp: seconds after the run's start. latency_s: send to the end of the answer. phase:
    only where it is not `measured`."""
    response: dict[str, Any] = {"finish_reason": record.finish_reason}
    if token_ids and (ids := reply_ids(record)) is not None:
        response["token_ids"] = ids
    if prompt_ids and record.prompt_token_ids is not None:
        response["prompt_token_ids"] = unpacked_tokens(record.prompt_token_ids)
    if record.tool_calls:
        response["tool_calls"] = [call.as_sent() for call in record.tool_calls]
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
