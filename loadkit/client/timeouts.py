"""How long each part of a request may take, and which limit it was that passed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. None: no limit of that kind.

    connect_s: opening a connection, TLS and name look-up included; outside the timed span.
    first_token_s: start of send to the first token (or the end, of an answer without one).
    idle_s: longest silence, before the answer and within it. total_s: start of send to the end.
    """

    connect_s: float = 10.0
    first_token_s: float | None = None
    idle_s: float | None = None
    total_s: float = 120.0
