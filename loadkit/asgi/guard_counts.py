"""The guard's counters, in whatever registry the server's /metrics shows."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from loadkit.asgi.rule import REASONS, Reason

OUTCOMES = ("first", "extended", "resent", "forked", "no_id", "unreadable", "violation")


class GuardCounts:
    """Every chat request has one outcome; only requests that were answered 409 are rejections.

    A race (two at once, each fine on its own) shows after the outcome: it is a violation as well.

    registry None: prometheus_client's own. One guard a registry: a second raises ValueError.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        registry = registry or REGISTRY
        requests = Counter(
            "loadkit:append_only_requests",
            "Chat requests seen by the append-only guard, by what they did to their history",
            ("outcome",),
            registry=registry,
        )
        violations = Counter(
            "loadkit:append_only_violations",
            "Chat requests that rewrote history, let through or not",
            ("reason",),
            registry=registry,
        )
        rejections = Counter(
            "loadkit:append_only_rejections",
            "Chat requests answered with 409 conversation_mutated",
            ("reason",),
            registry=registry,
        )
        self._requests = {name: requests.labels(name) for name in OUTCOMES}
        self._violations = {name: violations.labels(name) for name in REASONS}
        self._rejections = {name: rejections.labels(name) for name in REASONS}

    def seen(self, outcome: str) -> None:
        self._requests[outcome].inc()

    def violated(self, reason: Reason, *, is_rejected: bool) -> None:
        self._violations[reason].inc()
        if is_rejected:
            self._rejections[reason].inc()
