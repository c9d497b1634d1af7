"""The audit's answer: causes by tokens lost, each with its remedy and its worst example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from loadkit.analysis.audit.causes import CAUSES
from loadkit.analysis.audit.message import Found
from loadkit.analysis.audit.texts import excerpt
from loadkit.core.trace import Trace


class Example(msgspec.Struct, frozen=True):
    """The pair that lost most to a cause. Requests count from 1 in order of arrival; their places
    are `file:line`, None for what was not read from files.

    Places are None where the log has no text, or the cause has no place. before and after are
    excerpts of the text around the first difference; None unless text was asked for.
    """

    session: int
    request: int
    previous_request: int
    place: str | None
    previous_place: str | None
    tokens_lost: int
    message_index: int | None
    role: str | None
    char: int | None
    before_chars: int | None
    after_chars: int | None
    before: str | None
    after: str | None


class BrokenBy(msgspec.Struct, frozen=True):
    """A cause: how many turn pairs it broke first, and the prompt tokens they lost to it."""

    cause: str
    title: str
    remedy: str
    pairs: int
    tokens_lost: int
    lost_rate: float | None
    example: Example


@dataclass(frozen=True, slots=True)
class Break:
    """One pair of requests (rows), and what kept the later one from hitting what the earlier left."""

    before: int
    after: int
    tokens_lost: int
    found: Found


def by_cause(breaks: Sequence[Break], trace: Trace, show_text: bool) -> tuple[BrokenBy, ...]:
    """Group breaks, the costliest cause first."""
    total_tokens = int(trace.prompt_tokens.sum())
    groups: dict[str, list[Break]] = {}
    for found in breaks:
        groups.setdefault(found.found.cause, []).append(found)
    causes = (
        _broken_by(code, group, total_tokens, show_text, trace) for code, group in groups.items()
    )
    return tuple(sorted(causes, key=lambda cause: (-cause.tokens_lost, -cause.pairs, cause.cause)))


def _broken_by(
    code: str, breaks: Sequence[Break], total_tokens: int, show_text: bool, trace: Trace
) -> BrokenBy:
    lost = sum(found.tokens_lost for found in breaks)
    worst = max(breaks, key=lambda found: found.tokens_lost)
    return BrokenBy(
        cause=code,
        title=CAUSES[code].title,
        remedy=CAUSES[code].remedy,
        pairs=len(breaks),
        tokens_lost=lost,
        lost_rate=rate(lost, total_tokens),
        example=_example(worst, trace, show_text),
    )


def _example(worst: Break, trace: Trace, show_text: bool) -> Example:
    found, places = worst.found, trace.places
    return Example(
        session=int(trace.session[worst.after]),
        request=worst.after + 1,
        previous_request=worst.before + 1,
        place=None if places is None else places.at(worst.after),
        previous_place=None if places is None else places.at(worst.before),
        tokens_lost=worst.tokens_lost,
        message_index=found.message_index,
        role=found.role,
        char=found.char,
        before_chars=found.before_chars,
        after_chars=found.after_chars,
        before=excerpt(found.before) if show_text and found.before else None,
        after=excerpt(found.after) if show_text and found.after else None,
    )


def rate(part: int, total: int) -> float | None:
    return part / total if total else None
