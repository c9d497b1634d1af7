"""Token ids to text as they come: no half characters, no text past a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"


class Detokenizer:
    """Text that each new token adds. The deltas and `flush` join to the text of all tokens.

    Text is decoded together with the few tokens before it, since a token's text may depend on
    its left neighbour; a character whose bytes are not complete yet is held back.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._tokens: list[int] = []
        self._context = 0  # first token of the window that is decoded
        self._done = 0  # tokens whose text was handed out

    def add(self, token: int) -> str:
        self._tokens.append(token)
        return self._advance(final=False)

    def flush(self) -> str:
        """What was held back, with U+FFFD for a character that never got complete."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        before = self._decode(self._tokens[self._context : self._done])
        text = self._decode(self._tokens[self._context :])
        if len(text) <= len(before) or (text.endswith(REPLACEMENT) and not final):
            return ""
        self._context, self._done = self._done, len(self._tokens)
        return text[len(before) :]


class StopMatcher:
    """Cuts a stream of text at the first stop string; holds back what may become one."""

    def __init__(self, stops: Sequence[str]):
        self.stops = tuple(stops)
        self.stopped = False
        self._held = ""

    def add(self, text: str) -> str:
        """Text that may be shown now; sets `stopped` when a stop string is complete."""
        if self.stopped or not self.stops:
            return "" if self.stopped else text
        text = self._held + text
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self.stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back in vain."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
