"""Whole dialogues under `conversation` or `trajectory`: WildChat, LMSYS-Chat-1M, SWE agents' traces.

One cumulative request per assistant message. A row is a session. Times are left out: the public sets
have one a conversation at most. Of a message only what a chat template reads is kept, so nobody's
address or country is sent on. `role` may be `ai` or `human`, the text may stand under `text` or
`system_prompt` (nebius/SWE-agent-trajectories); `tools` are objects or the JSON of objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from loadkit.traces.dialogues import Message, replies_in, requests_after
from loadkit.traces.gaps import METADATA, holds_text
from loadkit.traces.lines import Place
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import TextRequest

NAME = "chats"
_ROLES = {"ai": "assistant", "human": "user"}
_KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning")
_TEXTS = ("content", "text", "system_prompt")
# What the public sets say of a message beside its words.
_NO_TEXT = METADATA | {
    "role",
    "country",
    "state",
    "hashed_ip",
    "header",
    "redacted",
    "toxic",
    "turn_identifier",
    "mask",
    "cutoff_date",
}


class Row(msgspec.Struct):
    """One dialogue, and what the public sets call it."""

    NO_TEXT: ClassVar[frozenset[str]] = frozenset(
        [
            "turn",
            "toxic",
            "redacted",
            "openai_moderation",
            "detoxify_moderation",
            "state",
            "country",
            "hashed_ip",
            "header",
            "instance_id",
            "exit_status",
            "generated_patch",
            "eval_logs",
            "target",
            "exit_code",
        ]
    )

    conversation: list[Message] | None = None
    trajectory: list[Message] | None = None
    tools: list[Any] | None = None
    conversation_id: Name | None = None
    conversation_hash: Name | None = None
    trajectory_id: Name | None = None

    @property
    def name(self) -> Name | None:
        names = (self.conversation_id, self.conversation_hash, self.trajectory_id)
        return next((name for name in names if name is not None), None)


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return any(isinstance(row.get(key), list) for key in ("conversation", "trajectory"))


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The requests of every dialogue, one after the other."""
    for session, (place, row) in enumerate(reading.rows(Row)):
        with reading.row():
            said = row.conversation if row.conversation is not None else row.trajectory
            if said is None:
                raise place.error("the row has neither `conversation` nor `trajectory`")
            messages = [_message(place, message, reading) for message in said]
            tools = [_tool(place, tool) for tool in row.tools or ()]
            for request in requests_after(messages, replies_in(messages), session, row.name):
                request.tools = tools or None
                yield place, request


def _message(place: Place, message: Message, reading: Reading) -> Message:
    role = message.get("role")
    if not isinstance(role, str):
        raise place.error("a message has no role")
    texts = [message[key] for key in _TEXTS if message.get(key)]
    if len(texts) > 1:
        raise place.error("a message has more than one of `content`, `text` and `system_prompt`")
    for key in message.keys() - _NO_TEXT - {*_KEPT, *_TEXTS}:
        if holds_text(message[key]):
            reading.gaps.field(place, f"conversation[].{key}")
    kept = {key: message[key] for key in _KEPT if message.get(key)}
    return {"role": _ROLES.get(role, role), "content": next(iter(texts), ""), **kept}


def _tool(place: Place, tool: Any) -> Message:
    try:
        told = msgspec.json.decode(tool) if isinstance(tool, str) else tool
    except (msgspec.DecodeError, RecursionError) as error:
        raise place.error("a tool is no JSON") from error
    if not isinstance(told, dict):
        raise place.error("a tool is no object")
    return told
