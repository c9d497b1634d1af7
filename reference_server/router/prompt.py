"""What the router reads of a request: its prompt as chained hashes, and whose conversation it is.

The router has no tokenizer. A block is BLOCK_BYTES bytes of the prompt as JSON, about the 16 tokens
of an engine's block; only its proportion to the prompt's length is ever compared with token counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

BLOCK_BYTES = 64
# 256 KiB of prompt; what is longer is told apart no further.
MAX_BLOCKS = 4096
SESSION_HEADER = b"x-session-id"

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class RoutedPrompt:
    """blocks: chained hashes, 64 bit, of the first MAX_BLOCKS full blocks. length: all, at least 1.

    affinity: what a hash ring sends to one place: the session, or the prompt's beginning.
    """

    blocks: tuple[int, ...]
    length: int
    affinity: bytes


def read_prompt(headers: Headers, body: bytes) -> RoutedPrompt | None:
    """None for what is no request with a prompt; the replica that gets it will say why."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    domain = _domain(headers, said)
    text = _text(said)
    if text is None:
        return None
    blocks = _chain(domain, text)
    session = _session(headers, said)
    start = blocks[0].to_bytes(8, "big") if blocks else text
    affinity = _hash(domain, session.encode() if session else start)
    return RoutedPrompt(blocks, max(1, len(text) // BLOCK_BYTES), affinity)


def _domain(headers: Headers, said: dict[str, Any]) -> bytes:
    """Prompts of different tenants, models and salts share nothing, here as in the engines."""
    key = headers.get(b"authorization", b"")
    named = orjson.dumps([said.get("model"), said.get("cache_salt")])
    return _hash(blake2b(key, digest_size=16).digest(), named)


def _text(said: dict[str, Any]) -> bytes | None:
    messages, prompt = said.get("messages"), said.get("prompt")
    try:
        if isinstance(messages, list):
            parts = [said.get("tools") or [], *messages]
            return b"\n".join(orjson.dumps(part, option=orjson.OPT_SORT_KEYS) for part in parts)
        if isinstance(prompt, str):
            return prompt.encode()
        return orjson.dumps(prompt)[:-1] if isinstance(prompt, list) else None
    except TypeError:  # nested deeper than it can be written again
        return None


def _session(headers: Headers, said: dict[str, Any]) -> str | None:
    header = headers.get(SESSION_HEADER)
    if header:
        return header.decode("latin-1")
    metadata = said.get("metadata")
    named = metadata.get("session_id") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) and named else None


def _chain(domain: bytes, text: bytes) -> tuple[int, ...]:
    hashes, parent = [], domain
    for number in range(min(len(text) // BLOCK_BYTES, MAX_BLOCKS)):
        parent = _hash(parent, text[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
        hashes.append(int.from_bytes(parent, "big"))
    return tuple(hashes)


def _hash(parent: bytes, data: bytes) -> bytes:
    return blake2b(data, key=parent, digest_size=8).digest()
