"""Figures and foreign strings as they appear in a report."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeGuard

UNKNOWN = "not known"
_MAX_CHARS = 400


def clean(text: str) -> str:
    """Foreign text on one line, without control, bidi and other invisible characters; at most 400
    characters. It does not escape: HTML and Markdown do that for themselves."""
    shown = "".join(" " if c in "\n\r\t" else c for c in text[: 4 * _MAX_CHARS])
    kept = "".join(c for c in shown if unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))
    return kept if len(kept) <= _MAX_CHARS else kept[: _MAX_CHARS - 1] + "…"


# `::error::text` at the start of a line, or `##[...]` anywhere, is a command to a CI's log reader.
_COMMAND = re.compile(r"::(?=\s*[A-Za-z])|##(?=\[)")


def for_log(text: str) -> str:
    """Foreign text for a terminal or a CI's log: clean, and no command to the log's reader."""
    return _COMMAND.sub(lambda found: " ".join(found.group()), clean(text))


def sentence(words: str) -> str:
    """Capital first, full stop last, as prose needs it."""
    words = clean(words)
    return words[:1].upper() + words[1:] + ("" if not words or words[-1] in ".!?)" else ".")


def is_figure(value: Any) -> TypeGuard[int | float]:
    """A number that can be: not below 0 nor beyond what a float counts exactly."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2**53


def percent(rate: float | None, digits: int = 1) -> str:
    return UNKNOWN if rate is None else f"{100 * rate:.{digits}f}%"


def points(rate: float | None) -> str:
    return UNKNOWN if rate is None else f"{100 * rate:.0f} points"


def count(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.0f}"


def signed(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:+,.0f}" if number else "0"


def milliseconds(seconds: float | None) -> str:
    """Seconds inside, ms on screen; a decimal below 10 ms."""
    if seconds is None:
        return UNKNOWN
    ms = 1000 * seconds
    return f"{ms:,.0f} ms" if abs(ms) >= 10 else f"{ms:.1f} ms"


def short_count(number: float) -> str:
    """An axis label: 500, 20k, 3M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def short_time(seconds: float) -> str:
    """An axis label: 50 ms, 2 s."""
    if seconds == 0:
        return "0"
    return f"{seconds:g} s" if seconds >= 1 else f"{round(1000 * seconds, 6):g} ms"


def yes_no(agrees: bool | None) -> str:
    return {True: "yes", False: "NO", None: "cannot be told"}[agrees]
