"""ShareGPT conversations: `conversations[{from, value}]`, one cumulative request per human turn.

No timestamps: only rates of an infinite cache have a meaning. Sessions are the conversations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from loadkit.traces.dialogues import Message, requests_after
from loadkit.traces.gaps import holds_text, known_fields
from loadkit.traces.lines import Place
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import TextRequest

NAME = "sharegpt"
# Names of speakers in the public files, and the roles that a chat template knows.
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class Turn(msgspec.Struct, rename={"speaker": "from"}):
    """One message."""

    NO_TEXT: ClassVar[frozenset[str]] = frozenset({"markdown", "weight", "loss", "label"})

    speaker: str
    value: str


class Row(msgspec.Struct):
    """One conversation."""

    conversations: list[Message]
    id: Name | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return "conversations" in row


class Conversations:
    """Reads the conversations and counts those that ask for nothing."""

    def __init__(self) -> None:
        self._num_silent = 0

    def requests(self, reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
        """The requests of every conversation, one after the other."""
        for session, (place, row) in enumerate(reading.rows(Row)):
            with reading.row():
                messages = [_message(place, turn, reading) for turn in row.conversations]
                asked = [at + 1 for at, turn in enumerate(messages) if turn["role"] == "user"]
                self._num_silent += not asked
                for request in requests_after(messages, asked, session, row.id):
                    yield place, request

    def notes(self) -> list[str]:
        """Counts the conversations without a request."""
        if not self._num_silent:
            return []
        return [f"{self._num_silent} conversations have no human turn, so no request"]


def _message(place: Place, said: Message, reading: Reading) -> Message:
    try:
        turn = msgspec.convert(said, Turn)
    except msgspec.ValidationError as error:
        raise place.error(f"a message of the conversation does not fit: {error}") from error
    for key in said.keys() - known_fields(Turn):
        if holds_text(said[key]):
            reading.gaps.field(place, f"conversations[].{key}")
    if turn.speaker not in _ROLES:
        known = ", ".join(_ROLES)
        raise place.error(f"unknown speaker {turn.speaker[:40]!r}", f"known: {known}")
    return {"role": _ROLES[turn.speaker], "content": turn.value}
