"""What the guard reads of a chat request: whose conversation it is, and its digest chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from loadkit.asgi.canonical import canonical
from loadkit.asgi.own_site import Scope
from loadkit.core.digest_chain import DIGEST_SIZE, digest_chain

SESSION_HEADER, PARENT_HEADER = b"x-session-id", b"x-parent-session-id"
RECEIPT_HEADER = b"x-append-only-receipt"
SESSION_FIELDS = ("session_id", "conversation_id")
MAX_MESSAGES = 10_000

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """key: digest of tenant and conversation id. chain: digests of tools and messages, one blob."""

    key: bytes
    chain: bytes
    num_choices: int
    parent_key: bytes | None
    receipt: str | None


class NoId(Exception):
    """The request names no conversation: there is nothing to hold it against."""


class NotReadable(Exception):
    """The body is no chat request that the guard can read; the server behind will say why."""


def read_request(scope: Scope, body: bytes, secret: bytes) -> ChatRequest:
    """secret: what tenants' digests are keyed with. NoId, NotReadable."""
    said, headers = _parse(body), _first_of_each(scope)
    session = _session(headers, said)
    tenant = blake2b(_tenant(scope, headers), key=secret, digest_size=16).digest()
    parent = headers.get(PARENT_HEADER)
    receipt = headers.get(RECEIPT_HEADER)
    num = said.get("n")
    return ChatRequest(
        key=_key(tenant, session),
        chain=_chain(said),
        num_choices=num if isinstance(num, int) and num > 0 else 1,
        parent_key=_key(tenant, parent) if parent else None,
        receipt=receipt.decode("latin-1") if receipt else None,
    )


def _first_of_each(scope: Scope) -> Headers:
    """Headers by name. Of one that is sent twice the first counts, as it does for Starlette."""
    return dict(reversed(list(scope["headers"])))


def _tenant(scope: Scope, headers: Headers) -> bytes:
    """Whose key it is: of the `caller` in the scope's state, where a key check before the guard put
    one with a key, else what the header says. The scheme's case and blanks make no other tenant."""
    key = getattr(scope.get("state", {}).get("caller"), "key", "")
    if key:
        return b"bearer " + str(key).encode()
    scheme, _, given = headers.get(b"authorization", b"").strip().partition(b" ")
    return scheme.lower() + b" " + given.strip()


def _parse(body: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotReadable from error
    if not isinstance(said, dict) or not isinstance(said.get("messages"), list):
        raise NotReadable
    if len(said["messages"]) > MAX_MESSAGES:
        raise NotReadable
    return said


def _session(headers: Headers, said: dict[str, Any]) -> bytes:
    session = headers.get(SESSION_HEADER)
    if session:
        return session
    metadata = said.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    for field in SESSION_FIELDS:
        value = named.get(field)
        if isinstance(value, str) and value:
            return value.encode()
    raise NoId


def _chain(said: dict[str, Any]) -> bytes:
    tools = said.get("tools")
    try:
        messages = [canonical(message) for message in said["messages"]]
        return b"".join(digest_chain(messages, tools if isinstance(tools, list) else ()))
    except TypeError as error:  # nested deeper than it can be written again
        raise NotReadable from error


def _key(tenant: bytes, session: bytes) -> bytes:
    return blake2b(session, key=tenant, digest_size=DIGEST_SIZE).digest()
