"""The rule: a request extends what its conversation said before, or repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadkit.asgi.histories import History
from loadkit.asgi.receipt import Receipt
from loadkit.core.digest_chain import DIGEST_SIZE

Reason = Literal["tools", "message", "truncated", "reply", "receipt", "fork", "race"]
Outcome = Literal["first", "extended", "resent", "forked"]
REASONS: tuple[Reason, ...] = (
    "tools", "message", "truncated", "reply", "receipt", "fork", "race",
)  # fmt: skip
SAID = {
    "tools": "the tools are not those that the conversation began with",
    "message": "this message is not the one that was sent before",
    "truncated": "messages that were sent before are missing from here on",
    "reply": "this is not the reply that the server gave",
    "receipt": "the history is not the one that the receipt stands for",
    "fork": "nothing of the parent conversation is in this one",
    "race": "another request of this conversation was admitted first and says something else here",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """index: the first message that breaks the rule; None: no single one (tools, receipt)."""

    reason: Reason
    index: int | None

    @property
    def param(self) -> str:
        if self.index is not None:
            return f"messages[{self.index}]"
        return "tools" if self.reason == "tools" else "messages"


def check(
    chain: bytes, known: History | None, receipt: Receipt | None, parent: History | None
) -> Outcome | Violation:
    """chain: the request's digests as one blob. The longer of memory and receipt is the history.

    parent: of a conversation not known yet, the one that it says it was forked from.
    """
    if receipt is not None and not _fits(chain, receipt):
        return Violation("receipt", None)
    if known is not None:
        is_newest = receipt is None or receipt.count * DIGEST_SIZE <= len(known.chain)
        return _against(chain, known, is_newest)
    if receipt is not None:
        return "resent" if receipt.count * DIGEST_SIZE == len(chain) else "extended"
    if parent is None:
        return "first"
    return "forked" if _common(chain, parent.chain) >= 2 else Violation("fork", 0)


def conflict(chain: bytes, known: History) -> Violation | None:
    """At admission: what another request that was admitted since the check makes wrong."""
    if chain.startswith(known.chain) or known.chain.startswith(chain):
        return None
    return Violation("race", max(0, _common(chain, known.chain) - 1))


def _fits(chain: bytes, receipt: Receipt) -> bool:
    end = receipt.count * DIGEST_SIZE
    return len(chain) >= end and chain[end - DIGEST_SIZE : end] == receipt.digest


def _against(chain: bytes, known: History, is_newest: bool) -> Outcome | Violation:
    end = len(known.chain)
    if not chain.startswith(known.chain):
        return _difference(chain, known.chain)
    if len(chain) == end:
        return "resent"
    following = chain[end : end + DIGEST_SIZE]
    if is_newest and known.is_reply_known and not known.may_follow(following):
        return Violation("reply", end // DIGEST_SIZE - 1)
    return "extended"


def _difference(chain: bytes, known: bytes) -> Violation:
    same = _common(chain, known)
    if same == 0:
        return Violation("tools", None)
    is_cut = same * DIGEST_SIZE == len(chain)
    return Violation("truncated" if is_cut else "message", same - 1)


def _common(one: bytes, other: bytes) -> int:
    """Leading digests that both have."""
    same = 0
    for at in range(0, min(len(one), len(other)), DIGEST_SIZE):
        if one[at : at + DIGEST_SIZE] != other[at : at + DIGEST_SIZE]:
            break
        same += 1
    return same
