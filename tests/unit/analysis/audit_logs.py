"""Crafted logs for the append-only audit: a character is a token, a template is one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from loadkit.analysis.audit import AppendOnly, append_only
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace

Message = dict[str, Any]


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def tokens_of(messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
    """System prompt, tools, then the rest; each message ends in a line break."""
    lines = [json.dumps(message, ensure_ascii=False) + "\n" for message in messages]
    head = lines[:1] if messages and messages[0]["role"] == "system" else []
    tools_text = json.dumps(list(tools)) + "\n" if tools else ""
    return [ord(char) for char in "".join(head) + tools_text + "".join(lines[len(head) :])]


def turn(
    messages: Sequence[Message],
    *,
    tools: Sequence[Any] | None = None,
    session: str = "s",
    reply: Any = None,
    rendered: Sequence[Message] | None = None,
) -> TokenRequest:
    """A request. `reply` is the assistant's text or message; `rendered` what the template makes."""
    message = assistant(reply) if isinstance(reply, str) else reply
    return TokenRequest(
        tokens_of(messages if rendered is None else rendered, tools),
        session=session,
        text=list(messages),
        tools=tools,
        reply=None if reply is None else tokens_of([message]),
        reply_text=reply,
    )


def prompt(text: str, session: str = "s") -> TokenRequest:
    return TokenRequest([ord(char) for char in text], session=session, text=text)


def audit(*requests: TokenRequest, show_text: bool = False, block_size: int = 1) -> AppendOnly:
    return audit_of(token_trace(requests, block_size), show_text)


def audit_of(trace: Trace, show_text: bool = False) -> AppendOnly:
    reuse = reuse_of(trace)
    return append_only(reuse, per_request_of(reuse, None).reusable_tokens, show_text)


def lost_by_hand(before: TokenRequest, after: TokenRequest) -> int:
    """Blocks of one token: the shorter of what was cached and what may hit, less what is common."""
    cached, sent = [*before.prompt, *(before.reply or ())], list(after.prompt)
    common = 0
    while common < min(len(cached), len(sent)) and cached[common] == sent[common]:
        common += 1
    return max(0, min(len(cached), len(sent) - 1) - common)
