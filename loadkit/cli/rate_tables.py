"""Rates on a terminal: the split by cause, the curve over capacity, the same colours everywhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from loadkit.analysis.curve import CurvePoint

# Glyphs differ too, so that a bar can be read without colours.
STYLES = {
    "replay": ("red", "▓"),
    "continuation": ("green", "█"),
    "shared": ("blue", "▒"),
    "miss": ("bright_black", "·"),
}
BAR_WIDTH = 30
_SMALLEST_BAR = 8
_PIPE_WIDTH = 100
# Characters of a line beside its bar.
_SPLIT_TEXT, _CURVE_TEXT = 68, 56
_MEANING = {
    "replay_same_session": "same prompt again by its own session",
    "replay_cross_session": "same prompt as another session's",
    "continuation": "the session's own earlier turns",
    "shared": "what other sessions put there",
    "miss": "the rest",
}


def console() -> Console:
    """Tables go to stdout; a pipe gets a fixed width and no colours. Markup in texts stays text."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def table(
    heads: Sequence[str] = (), justify: Literal["left", "right"] = "left", no_wrap: bool = False
) -> Table:
    """An empty table without lines; a heading for each column, or no headings."""
    return Table(
        *(Column(head, justify=justify, no_wrap=no_wrap) for head in heads),
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        show_header=bool(heads),
    )


def note(out: Console, text: str) -> None:
    """A warning below the figures."""
    out.print(Text("note: ", "yellow").append(text, "default"))


def percent(rate: float | None) -> str:
    """`34.7%`, or `n/a` where there was nothing to divide by."""
    return "n/a" if rate is None else f"{100 * rate:.1f}%"


def count(number: int) -> str:
    """`73.6 M`, `122 k`, `9,400`."""
    for size, suffix in ((10**9, " G"), (10**6, " M"), (10**4, " k")):
        if number >= size:
            unit = 10**3 if suffix == " k" else size
            return f"{number / unit:.3g}{suffix}"
    return f"{number:,}"


def split_table(rates: dict[str, float | None], width: int = _PIPE_WIDTH) -> Table:
    """Causes with their share of prompt tokens; `rates` has the keys of the split."""
    room = _bar_width(width, _SPLIT_TEXT)
    made = table()
    for cause, meaning in _MEANING.items():
        style, glyph = _style(cause)
        bar = Text(glyph * round(room * (rates[cause] or 0)), style)
        name = Text(cause.replace("_", " "), style)
        made.add_row(name, percent(rates[cause]).rjust(6), bar, Text(meaning, "dim"))
    return made


def curve_table(curve: Sequence[CurvePoint], width: int = _PIPE_WIDTH) -> Table:
    """Hit rate over capacity; the bar is coloured by cause."""
    room = _bar_width(width, _CURVE_TEXT)
    made = table(("blocks", "tokens", "hit rate", "evicted", "block hits"), "right", no_wrap=True)
    made.add_column("by cause", no_wrap=True)
    for point in curve:
        made.add_row(
            "infinite" if point.capacity_blocks is None else f"{point.capacity_blocks:,}",
            "" if point.capacity_tokens is None else count(point.capacity_tokens),
            percent(point.hit_rate),
            percent(point.miss_capacity),
            percent(point.block_hit_rate),
            _stacked(point, room),
        )
    return made


def _bar_width(width: int, text: int) -> int:
    """What a line of that width has left for a bar beside its text."""
    return max(_SMALLEST_BAR, min(BAR_WIDTH, width - text))


def _stacked(point: CurvePoint, width: int) -> Text:
    """Bar whose pieces end at the rounded running sum, so that they never outgrow the hit rate."""
    bar, total, drawn = Text(), 0.0, 0
    for cause in ("replay_same_session", "replay_cross_session", "continuation", "shared"):
        total += getattr(point, cause) or 0
        end = round(width * total)
        style, glyph = _style(cause)
        bar.append(glyph * (end - drawn), style)
        drawn = end
    style, glyph = STYLES["miss"]
    return bar.append(glyph * (width - drawn), style)


def _style(cause: str) -> tuple[str, str]:
    return STYLES["replay" if cause.startswith("replay") else cause]
