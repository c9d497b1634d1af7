"""The questions of `loadkit profiles new`: five, each asked again until its answer fits."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from loadkit.core.errors import InputError
from loadkit.profiles.drafting import BASES, Answers, check_service


class _Question(NamedTuple):
    """What is asked, the answer that Enter gives, and between what an answer must lie."""

    words: str
    default: str | int | float
    low: float = 0
    high: float = 0


_SERVICE = _Question(f"What does it serve: {', '.join(BASES)}?", "chat")
_SESSIONS = _Question("How many sessions (conversations, tasks) in a run?", 200, 1, 1_000_000)
_RATE = _Question("How many of them begin a second?", 0.5, 1e-6, 1e6)
_REQUESTS = _Question("How many requests has one, on average?", 3.0, 1, 10_000)
_SYSTEM = _Question("How many tokens has the system prompt that they share?", 500, 1, 80_000)
_NONE = _SYSTEM._replace(words=f"{_SYSTEM.words} (0: there is none)", default=0, low=0)
_DOCUMENT = _Question("How many tokens has a document?", 2000, 1, 80_000)
_INTRO = "Enter takes the answer in brackets; all of it can be changed in the file later."


def asked(given: Answers) -> Answers:
    """The answers, those not given as options asked for. InputError where nobody answers."""
    if None in given:
        print(_INTRO, file=sys.stderr)
    service = str(_ask(_SERVICE) if given.service is None else given.service)
    check_service(service)
    shared = {"single": _NONE, "documents": _DOCUMENT}.get(service, _SYSTEM)
    sessions, rate, requests, tokens = given[1:]
    if requests is None and service == "single":
        requests = 1.0
    return Answers(
        service,
        int(_ask(_SESSIONS)) if sessions is None else sessions,
        float(_ask(_RATE)) if rate is None else rate,
        float(_ask(_REQUESTS)) if requests is None else requests,
        int(_ask(shared)) if tokens is None else tokens,
    )


def _ask(question: _Question) -> str | int | float:
    """Asked again until the answer fits. InputError where nobody answers."""
    import typer

    try:
        answer: str | int | float = typer.prompt(
            question.words,
            question.default,
            value_proc=lambda text: _checked(question, str(text)),
            err=True,
        )
    except typer.Abort as stop:
        print(file=sys.stderr)
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise InputError(
            "no answer",
            where=question.words,
            remedy="answer, or give the options of `profiles new`",
        ) from stop
    return answer


def _checked(question: _Question, text: str) -> str | int | float:
    import typer

    if isinstance(question.default, str):
        if text.strip() not in BASES:
            raise typer.BadParameter(f"one of {', '.join(BASES)}, please")
        return text.strip()
    try:
        value = type(question.default)(text)
    except ValueError:
        value = math.nan
    if not question.low <= value <= question.high:
        kind = "a whole number" if isinstance(question.default, int) else "a number"
        raise typer.BadParameter(f"{kind} from {question.low:g} to {question.high:,.0f}, please")
    return value
