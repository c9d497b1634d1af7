"""Receipts: what a replica admitted of a conversation, signed, for the client to show to the next."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from loadkit.core.digest_chain import DIGEST_SIZE

VERSION = "v1"
MAX_CHARS = 256


@dataclass(frozen=True, slots=True)
class Receipt:
    """The admitted chain had `count` digests, tools included, and ended in `digest`."""

    count: int
    digest: bytes


class Signer:
    """Signs with HMAC-SHA256 over the conversation's key (tenant and id), count and digest.

    Replicas with the same secret accept each other's receipts. A receipt shows that one request was
    admitted; an older one says less, so that it never makes a true history false.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, key: bytes, chain: bytes) -> str:
        made = Receipt(len(chain) // DIGEST_SIZE, chain[-DIGEST_SIZE:])
        return f"{VERSION}.{made.count}.{made.digest.hex()}.{self._mac(key, made)}"

    def read(self, key: bytes, text: str) -> Receipt | None:
        """None for what this secret did not sign for this conversation."""
        version, _, rest = text[:MAX_CHARS].partition(".")
        count, _, rest = rest.partition(".")
        digest, _, mac = rest.partition(".")
        try:
            made = Receipt(int(count), bytes.fromhex(digest))
        except ValueError:
            return None
        same = hmac.compare_digest(mac.encode(), self._mac(key, made).encode())
        return made if version == VERSION and same else None

    def _mac(self, key: bytes, receipt: Receipt) -> str:
        said = b"%b|%d|%b" % (key, receipt.count, receipt.digest)
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()
