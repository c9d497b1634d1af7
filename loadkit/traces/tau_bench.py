"""tau-bench trajectories: tool-using dialogues, one cumulative request per assistant message.

A row has task_id, trial and traj, the dialogue as OpenAI messages. No timestamps: only rates of an
infinite cache have a meaning. The tools' definitions were sent with every request but are not in
the files, so prompts are shorter, and rates lower, than the served ones.
Source of the format: sierra-research/tau-bench, historical_trajectories.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from loadkit.traces.dialogues import Message, replies_in, requests_after
from loadkit.traces.lines import Place
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import TextRequest

NAME = "tau-bench"
NOTE = "tau-bench files hold no tool definitions: prompts are shorter than the served ones"


class Row(msgspec.Struct):
    """One dialogue. Rewards and task descriptions are skipped."""

    NO_TEXT: ClassVar[frozenset[str]] = frozenset({"info", "reward"})

    traj: list[Message]
    task_id: Name
    trial: Name = 0


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return {"traj", "task_id"} <= row.keys()


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The requests of every dialogue, one after the other."""
    for session, (place, row) in enumerate(reading.rows(Row)):
        with reading.row():
            messages = [_message(place, message) for message in row.traj]
            name = f"{row.task_id}/{row.trial}"
            for request in requests_after(messages, replies_in(messages), session, name):
                yield place, request


def _message(place: Place, message: Message) -> Message:
    """A message with text content: null stands beside tool calls, and templates refuse it."""
    if not isinstance(message.get("role"), str):
        raise place.error("a message of `traj` has no role")
    return {**message, "content": message.get("content") or ""}
