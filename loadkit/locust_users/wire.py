"""What master and workers on other machines say to each other over Locust's connection.

Locust's port asks nobody who they are. So each message carries a MAC under a token that both sides
were given ($LOADKIT_TOKEN), over its kind, its sender or receiver, and its content: a stranger gets
no share of the plan, and no worker sends requests, with its API key, where a stranger says. It is
no secrecy: the plan travels in the clear. Content is msgpack, never pickle.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from typing import Any, TypeVar

import msgspec

from loadkit.locust_users.process import TOKEN_VARIABLE
from loadkit.locust_users.settings import Settings, WorkerStatus
from loadkit.runs.context import RunContext
from loadkit.traffic.plan import SessionPlan

HELLO, WELCOME, REFUSED = "loadkit_hello", "loadkit_welcome", "loadkit_refused"
SHARE, READY, GO = "loadkit_share", "loadkit_ready", "loadkit_go"
JOURNAL, ACK, STOP = "loadkit_journal", "loadkit_ack", "loadkit_stop"
MAC_BYTES = 32

T = TypeVar("T")


class Refused(Exception):
    """A message that was not made with our token, or was changed on the way."""


class Hello(msgspec.Struct, frozen=True):
    """A worker's first message."""


class Welcome(msgspec.Struct, frozen=True):
    """The master's answer to a hello with the right token. A wrong one gets REFUSED, which carries
    no MAC: a stranger could try tokens on it."""


class Share(msgspec.Struct, frozen=True):
    """A worker's part of a run. part: the user class that plays it, "" for `loadkit run`'s."""

    part: str
    worker: int
    settings: Settings
    context: RunContext
    sessions: tuple[SessionPlan, ...]


class Part(msgspec.Struct, frozen=True):
    """Ready (worker: the share has come), or stop (master: end it and send what is left)."""

    part: str


class Go(msgspec.Struct, frozen=True):
    """The run's times count from `lead_s` after this arrives."""

    part: str
    lead_s: float


class Chunk(msgspec.Struct, frozen=True):
    """Bytes of a worker's journal from `offset` on. done: the worker has ended, and this is all."""

    part: str
    offset: int
    data: bytes
    status: WorkerStatus
    done: bool


class Ack(msgspec.Struct, frozen=True):
    """How many bytes of the journal the master has on disk. closed: it knows that this is all."""

    part: str
    size: int
    closed: bool


class Wire:
    """Seals and opens messages with one token. `client` is the worker's id, on both sides."""

    def __init__(self, token: str | None = None):
        self._key = (token or os.environ.get(TOKEN_VARIABLE) or secrets.token_hex(16)).encode()

    def seal(self, kind: str, client: str, content: msgspec.Struct) -> dict[str, Any]:
        body = msgspec.msgpack.encode(content)
        return {"sealed": self._mac(kind, client, body) + body}

    def open(self, kind: str, client: str, data: object, type_: type[T]) -> T:
        """The content. Refused if it was not sealed with our token for this kind and worker."""
        sealed = data.get("sealed") if isinstance(data, dict) else None
        if not isinstance(sealed, bytes):
            raise Refused(f"{kind} from {client} is not sealed")
        body = sealed[MAC_BYTES:]
        if not hmac.compare_digest(sealed[:MAC_BYTES], self._mac(kind, client, body)):
            raise Refused(f"{kind} of {client} was not made with this run's token")
        try:
            return msgspec.msgpack.decode(body, type=type_)
        except msgspec.DecodeError as error:
            raise Refused(f"{kind} of {client}: {error}") from error

    def _mac(self, kind: str, client: str, body: bytes) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{client}\0".encode() + body, hashlib.sha256)
