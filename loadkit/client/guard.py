"""Append-only guard: a session's history may grow or be sent again, never be rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from loadkit.core.digest_chain import digest_chain, first_difference

REWRITTEN = "append-only history rewritten"
Verdict = Literal["first", "extended", "resent"]


class Mutation(Exception):
    """A session's history was changed. `message_index`: first changed message, None: the tools.

    An index equal to the number of messages given means that the history was truncated there.
    """

    def __init__(self, session: str, message_index: int | None, known: int):
        self.session, self.message_index = session, message_index
        place = "its tools changed" if message_index is None else f"at message {message_index}"
        super().__init__(f"{REWRITTEN} {place} (of {known} already sent)")


class AppendOnlyGuard:
    """Keeps a digest chain per session: 16 bytes a message, no text. Count what it refuses."""

    def __init__(self) -> None:
        self._chains: dict[str, list[bytes]] = {}
        self.num_resent = 0
        self.num_refused = 0

    def check(self, session: str, messages: Sequence[Any], tools: Sequence[Any] = ()) -> Verdict:
        """Accept an extension or an identical resend; raise Mutation otherwise.

        A refused request leaves the session's chain as it was.
        """
        chain = digest_chain(messages, tools)
        known = self._chains.get(session)
        if known is None:
            self._chains[session] = chain
            return "first"
        if chain[: len(known)] != known:
            self.num_refused += 1
            raise Mutation(session, first_difference(known, chain), len(known) - 1)
        self._chains[session] = chain
        if len(chain) > len(known):
            return "extended"
        self.num_resent += 1
        return "resent"

    def forget(self, session: str) -> None:
        """Drop a finished session, so that a long run's memory stays bounded."""
        self._chains.pop(session, None)
