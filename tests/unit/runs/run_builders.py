"""Small records and contexts to build runs from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadkit.runs.context import PrefixCounters, RunContext
from loadkit.runs.journal import JournalWriter
from loadkit.runs.record import Record


def answered(session: str, turn: int, at_s: float, **fields: Any) -> Record:
    """An ok record: sent when intended, first token after 0.1 s, done after 0.3 s."""
    values: dict[str, Any] = {
        "session": session,
        "turn": turn,
        "name": "chat",
        "worker": 0,
        "outcome": "ok",
        "intended_s": at_s,
        "sent_s": at_s,
        "first_token_s": at_s + 0.1,
        "last_token_s": at_s + 0.3,
        "completed_s": at_s + 0.3,
        "gaps_s": [0.2],
        "status": 200,
        "finish_reason": "stop",
        "prompt_tokens": 100,
        "output_tokens": 3,
        "cached_tokens": 0,
        "messages": [{"role": "user", "content": f"{session} {turn}"}],
        "reply": "yes",
    }
    return Record(**{**values, **fields})


def context(**fields: Any) -> RunContext:
    values: dict[str, Any] = {
        "profile": {"name": "test"},
        "url": "http://127.0.0.1:8000/v1",
        "model": "m",
        "seed": 7,
        "started_unix_s": 1.75e9,
        "duration_s": 10.0,
        "processes": 1,
        "loop": "open",
        "kind": "conversation",
        "scheduled": 0,
        "versions": {"loadkit": "0.1.0"},
    }
    return RunContext(**{**values, **fields})


def counters(hits: float, queries: float) -> PrefixCounters:
    return PrefixCounters(source="vllm", queries=queries, hits=hits)


def journal(work: Path, worker: int, records: list[Record]) -> Path:
    path = work / "journals" / f"worker-{worker}.journal"
    with JournalWriter(path) as writer:
        for record in records:
            writer.append(record)
    return path
