"""A conversation as a chain of digests: equal digest means equal history up to there, no text kept."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import orjson

DIGEST_SIZE = 16


def digest_chain(messages: Sequence[Any], tools: Sequence[Any] = ()) -> list[bytes]:
    """Digest of the tools, then of each message chained to the one before it.

    1 + len(messages) digests of DIGEST_SIZE bytes. What JSON cannot hold raises TypeError.
    """
    digests = [link(b"", list(tools))]
    for message in messages:
        digests.append(link(digests[-1], message))
    return digests


def link(parent: bytes, value: Any) -> bytes:
    """The digest of a value that follows `parent`; the order of an object's keys is no matter."""
    canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return blake2b(canonical, key=parent, digest_size=DIGEST_SIZE).digest()


def num_same(known: Sequence[bytes], chain: Sequence[bytes]) -> int:
    """Leading digests that both have."""
    same = 0
    while same < min(len(known), len(chain)) and known[same] == chain[same]:
        same += 1
    return same


def first_difference(known: Sequence[bytes], chain: Sequence[bytes]) -> int | None:
    """Index of the first message that differs, or of the first one missing; None: the tools."""
    same = num_same(known, chain)
    return None if same == 0 else same - 1
