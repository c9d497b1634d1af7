"""Append-only guard: a conversation's history may grow or be sent again, never be rewritten.

Pure ASGI, in front of any server of /v1/chat/completions. Answers pass untouched, as they come.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

from prometheus_client import CollectorRegistry

from loadkit.asgi.body import Replayed
from loadkit.asgi.chat_request import (
    RECEIPT_HEADER,
    ChatRequest,
    NoId,
    NotReadable,
    read_request,
)
from loadkit.asgi.guard_counts import GuardCounts
from loadkit.asgi.histories import Histories, History
from loadkit.asgi.own_site import App, Receive, Scope, Send
from loadkit.asgi.receipt import Signer
from loadkit.asgi.refusal import mutated, refuse, too_large
from loadkit.asgi.reply_digest import StreamedReply, Unreadable, WholeReply
from loadkit.asgi.rule import Violation, check, conflict
from loadkit.core.digest_chain import DIGEST_SIZE
from loadkit.core.errors import InputError

Mode = Literal["off", "observe", "enforce"]
MODE_VARIABLE, SECRET_VARIABLE = "LOADKIT_APPEND_ONLY", "LOADKIT_APPEND_ONLY_SECRET"
CHAT_PATH = "/chat/completions"
MAX_BODY_BYTES = 16 << 20
MAX_BYTES = 16 << 20
TTL_S = 3600.0


class AppendOnly:
    """ASGI middleware. off: does nothing. observe: counts. enforce: 409 for a rewritten history.

    mode and secret come from LOADKIT_APPEND_ONLY (default: observe) and LOADKIT_APPEND_ONLY_SECRET
    where they are not given. With a secret, every admitted request is answered with a receipt in
    x-append-only-receipt; a client that sends it with the next one may reach any replica that has
    the same secret. max_bytes bounds the memory of all conversations together.
    """

    def __init__(
        self,
        app: App,
        *,
        mode: str | None = None,
        secret: str | None = None,
        max_bytes: int = MAX_BYTES,
        ttl_s: float = TTL_S,
        max_body_bytes: int = MAX_BODY_BYTES,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes
        self.mode = _mode(mode)
        shared = os.environ.get(SECRET_VARIABLE, "") if secret is None else secret
        self._secret = _secret_bytes(shared)
        self._signer = Signer(self._secret) if shared else None
        self.histories = Histories(max_bytes, ttl_s, clock)
        self._counts = None if self.mode == "off" else GuardCounts(registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._counts is None or not _is_chat(scope):
            await self._app(scope, receive, send)
        else:
            await self._guarded(scope, Replayed(receive), send, self._counts)

    async def _guarded(
        self, scope: Scope, receive: Replayed, send: Send, counts: GuardCounts
    ) -> None:
        body = await receive.body(self._max_body_bytes)
        if body is None and self.mode == "enforce" and not receive.has_left:
            await refuse(send, 413, too_large(self._max_body_bytes))
            return
        try:
            if body is None:
                raise NotReadable
            asked = read_request(scope, body, self._secret)
        except (NoId, NotReadable) as error:
            counts.seen("no_id" if isinstance(error, NoId) else "unreadable")
            await self._app(scope, receive, send)
            return
        await self._checked(asked, scope, receive, send, counts)

    async def _checked(
        self, asked: ChatRequest, scope: Scope, receive: Replayed, send: Send, counts: GuardCounts
    ) -> None:
        found = self._check(asked)
        is_violation = isinstance(found, Violation)
        counts.seen("violation" if isinstance(found, Violation) else found)
        if isinstance(found, Violation):
            counts.violated(found.reason, is_rejected=self.mode == "enforce")
            if self.mode == "enforce":
                await refuse(send, 409, mutated(found))
                return
        passing = _Passing(self, asked, receive, send, counts, is_violation=is_violation)
        try:
            await self._app(scope, receive, passing)
        finally:
            passing.end()

    def _check(self, asked: ChatRequest) -> str | Violation:
        receipt = None
        if self._signer and asked.receipt:
            receipt = self._signer.read(asked.key, asked.receipt)
        parent = self.histories.get(asked.parent_key) if asked.parent_key else None
        return check(asked.chain, self.histories.get(asked.key), receipt, parent)

    def commit(self, asked: ChatRequest, *, is_rewrite: bool) -> History:
        """The server has taken the request: its history is the conversation's from now on.

        A late repetition of an earlier request leaves the longer history as it is. is_rewrite: it
        broke the rule and is let through, so that what follows it is measured against it.
        """
        known = self.histories.get(asked.key)
        chain = asked.chain
        if known is not None and not is_rewrite and known.chain.startswith(chain):
            chain = known.chain
        history = self.histories.use(asked.key, chain)
        return history if history.chain == asked.chain else History(asked.chain, 0.0)

    def race(self, asked: ChatRequest) -> Violation | None:
        """What was admitted since the check and cannot be the same history."""
        known = self.histories.get(asked.key)
        return None if known is None else conflict(asked.chain, known)

    def receipt(self, asked: ChatRequest) -> str | None:
        return self._signer.sign(asked.key, asked.chain) if self._signer else None


class _Passing:
    """`send` of one request: commits when the server admits it, digests the reply as it passes."""

    def __init__(
        self,
        guard: AppendOnly,
        asked: ChatRequest,
        receive: Replayed,
        send: Send,
        counts: GuardCounts,
        *,
        is_violation: bool,
    ) -> None:
        self._guard, self._asked, self._receive, self._send = guard, asked, receive, send
        self._counts, self._is_rewrite = counts, is_violation
        self._history: History | None = None
        self._reply: StreamedReply | WholeReply | None = None
        self._is_refused = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start" and 200 <= message["status"] < 300:
            message = await self._admitted(message)
        elif message["type"] == "http.response.body" and self._reply is not None:
            self._look(message.get("body", b""), is_last=not message.get("more_body", False))
        if not self._is_refused:
            await self._send(message)

    def end(self) -> None:
        """The answer is over; a reply that did not finish may be known to its client in part."""
        if self._history is not None:
            self._history.end_reply(b"")
        self._history = self._reply = None

    async def _admitted(self, message: Any) -> Any:
        race = None if self._is_rewrite else self._guard.race(self._asked)
        if race is not None:
            is_rejected = self._guard.mode == "enforce"
            self._counts.violated(race.reason, is_rejected=is_rejected)
            self._is_rewrite = True
            if is_rejected:
                self._is_refused = True
                self._receive.cut()
                await refuse(self._send, 409, mutated(race))
                return message
        self._history = self._guard.commit(self._asked, is_rewrite=self._is_rewrite)
        self._history.num_open += 1
        self._reply = _reply(message, self._asked)
        receipt = self._guard.receipt(self._asked)
        if receipt is None:
            return message
        header = (RECEIPT_HEADER, receipt.encode())
        return message | {"headers": [*message.get("headers", ()), header]}

    def _look(self, data: bytes, *, is_last: bool) -> None:
        """Before the bytes are sent on: a client may answer the last of them at once."""
        assert self._reply is not None
        try:
            self._reply.feed(data)
            if self._reply.is_finished or (is_last and isinstance(self._reply, WholeReply)):
                self._finish(self._reply.digests())
        except Unreadable:
            self._finish(b"")

    def _finish(self, digests: bytes) -> None:
        if self._history is not None:
            self._history.end_reply(digests)
        self._history = self._reply = None


def _reply(start: Any, asked: ChatRequest) -> StreamedReply | WholeReply | None:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    kind = headers.get(b"content-type", b"")
    parent = asked.chain[-DIGEST_SIZE:]
    if b"content-encoding" in headers:
        return None
    if kind.startswith(b"text/event-stream"):
        return StreamedReply(parent, asked.num_choices)
    return WholeReply(parent) if kind.startswith(b"application/json") else None


def _is_chat(scope: Scope) -> bool:
    is_post = scope["type"] == "http" and scope["method"] == "POST"
    # Starlette's routes end in `$`, which a path with one newline (%0A) behind it matches, too.
    return bool(is_post and scope["path"].removesuffix("\n").endswith(CHAT_PATH))


def _mode(given: str | None) -> Mode:
    text = os.environ.get(MODE_VARIABLE, "observe") if given is None else given
    if text not in get_args(Mode):
        modes = ", ".join(get_args(Mode))
        raise InputError(
            f"expected one of {modes}, got {text!r}",
            where=MODE_VARIABLE if given is None else "append-only mode",
        )
    return cast(Mode, text)


def _secret_bytes(shared: str) -> bytes:
    """A key of fixed length from a shared secret; without one, of this process alone."""
    return hashlib.sha256(shared.encode()).digest() if shared else secrets.token_bytes(32)
