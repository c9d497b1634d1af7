"""Reads cached tokens from the end of a reply as it passes, where the reply says them."""

from __future__ import annotations

import re

TAIL_BYTES = 4096
# In a reply's own text the quotes are escaped, so that it cannot be taken for usage.
PROMPT = re.compile(rb'"prompt_tokens":\s*(\d{1,9})')
CACHED = re.compile(rb'"cached_tokens":\s*(\d{1,9})')


class UsageTail:
    """Keeps the last TAIL_BYTES that it is fed: usage stands at the end of both kinds of answer."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def read(self) -> tuple[int, int] | None:
        """(prompt_tokens, cached_tokens); None if the reply does not report both."""
        prompt, cached = PROMPT.findall(self._tail), CACHED.findall(self._tail)
        return (int(prompt[-1]), int(cached[-1])) if prompt and cached else None
