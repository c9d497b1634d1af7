"""A small valid profile of every traffic kind, for the contract all kinds keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadkit.profiles import Profile

ONE_SECOND = {"loop": "open", "process": "constant", "rate_per_s": 1}


def constant(mean: float) -> dict[str, Any]:
    return {"distribution": "constant", "mean": mean, "max": 1e6, "source": "test"}


SYSTEM = {"count": 3, "sentences": 4, "source": "test"}
CONVERSATION = {
    "kind": "conversation",
    "corpus": "assistant-chat",
    "system_prompts": SYSTEM,
    "turns": constant(3),
    "think_s": constant(2),
    "message_sentences": constant(3),
}
CORPUS = {"kind": "corpus", "corpus": "assistant-chat", "message_sentences": constant(4)}
DOCUMENT = {
    "kind": "document",
    "corpus": "field-documents",
    "documents": {"count": 4, "sentences": constant(30), "source": "test"},
    "questions": constant(2),
    "question_sentences": constant(2),
    "think_s": constant(2),
}
BATCH = {
    "kind": "batch",
    "corpus": "review-batch",
    "suite": 5,
    "instruction_sentences": 6,
    "item_sentences": constant(3),
}
AGENT = {
    "kind": "agent",
    "corpus": "coding-agent",
    "system_prompts": SYSTEM,
    "tools": {"count": 3, "sets": 2, "source": "test"},
    "steps": constant(5),
    "tool_s": constant(1),
    "task_sentences": constant(3),
    "result_lines": constant(4),
    "retry_share": 0.2,
    "sub_agents": {
        "share": 0.3,
        "count": constant(2),
        "steps": constant(2),
        "source": "test",
    },
    "compaction": {"every_steps": 3, "source": "test"},
}
MIXTURE = {
    "kind": "mixture",
    "sessions": 24,
    "parts": [
        {"name": f"the-{traffic['kind']}", "weight": 1, "traffic": traffic, "source": "test"}
        for traffic in (CONVERSATION, CORPUS, DOCUMENT, BATCH, AGENT)
    ],
}


def traffic_of(kind: str, folder: Path) -> dict[str, Any]:
    """The section of a kind; replay sends a log written into `folder`."""
    if kind == "replay":
        return {"kind": "replay", "log": write_log_of_three(folder)}
    sections: dict[str, dict[str, Any]] = {
        "conversation": CONVERSATION | {"sessions": 12},
        "corpus": CORPUS | {"requests": 12},
        "document": DOCUMENT | {"sessions": 12},
        "batch": BATCH | {"runs": 2},
        "agent": AGENT | {"sessions": 6},
        "mixture": MIXTURE,
    }
    return sections[kind]


def write_log_of_three(folder: Path) -> str:
    """Two sessions, the first of them with two turns."""
    path = folder / "log.jsonl"
    rows = [("a", 0.0, ["x"]), ("b", 1.5, ["y"]), ("a", 4.0, ["x", "z"])]
    lines = [
        json.dumps(
            {
                "session_id": session,
                "timestamp": at,
                "messages": [{"role": "user", "content": text * 60} for text in texts],
            }
        )
        for session, at, texts in rows
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def profile_of(
    traffic: dict[str, Any], arrivals: dict[str, Any] | None = None, **more: Any
) -> Profile:
    """A profile with this traffic; max_tokens 8."""
    data: dict[str, Any] = {
        "schema": "loadkit.profile/1",
        "name": "test",
        "summary": "for tests",
        "traffic": traffic,
        "arrivals": arrivals or ONE_SECOND,
        "request": {"max_tokens": constant(8)},
    }
    return Profile.model_validate(data | more)
