"""The last requests as rows of a `hashed` log: no text, hashes keyed by a secret of the process."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import deque
from typing import Any

from reference_server.request import Request

MAX_ROWS = 10_000
HASH_BYTES = 7  # ids are signed 64-bit numbers


class RequestLog:
    """What `loadkit analyze` needs to predict this server's hits. Off until `start`.

    Block hashes are chained and salted already; they are keyed once more here, since whoever knows
    the salt could guess prompts from them. Readable from any thread.
    """

    def __init__(self, block_size: int, limit: int = MAX_ROWS):
        self._block_size = block_size
        self._rows: deque[dict[str, Any]] = deque(maxlen=limit)
        self._key = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self.is_on = False
        self.num_lost = 0  # rows that nobody took in time, since the start

    def start(self) -> None:
        self.is_on = True

    def add(self, request: Request) -> None:
        """One ended request."""
        if not self.is_on:
            return
        row = self._row(request)
        with self._lock:
            self.num_lost += len(self._rows) == self._rows.maxlen
            self._rows.append(row)

    def take(self) -> list[dict[str, Any]]:
        """The rows so far, in order of arrival; they are forgotten here."""
        with self._lock:
            rows = sorted(self._rows, key=lambda row: row["timestamp_s"])
            self._rows.clear()
        return rows

    def _row(self, request: Request) -> dict[str, Any]:
        """A request without a session is a session of its own."""
        size = self._block_size
        resident = len(request.tokens) - 1 if request.num_output else request.num_computed
        session = request.session.encode() if request.session else secrets.token_bytes(16)
        numbers = [self._number(block_hash) for block_hash in request.hashes[: resident // size]]
        num_full = request.num_prompt // size
        return {
            "timestamp_s": request.arrival_s,
            "completed_s": time.monotonic(),
            "session": self._number(session),
            "prompt_tokens": request.num_prompt,
            "output_tokens": request.num_output,
            "block_size": size,
            "hashes": [self._number(block_hash) for block_hash in request.hashes[:num_full]],
            "prompt_id": self._number(request.prompt_key),
            "partial_page": resident % size != 0,
            "reply_hashes": numbers[num_full:],
        }

    def _number(self, value: bytes) -> int:
        digest = hashlib.blake2b(value, key=self._key, digest_size=HASH_BYTES).digest()
        return int.from_bytes(digest, "big")
