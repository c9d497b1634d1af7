"""Small SVG helpers: escaped tags, scales, axes. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from loadkit.report.words import clean

Scale = Callable[[float], float]
Point = tuple[float, float]


def tag(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """One element; text and attribute values are escaped, text is cleaned too. class_ becomes
    class, text_anchor text-anchor. Foreign text in an attribute is for the caller to clean."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(c if isinstance(c, Markup) else escape(clean(c)) for c in children)
    return Markup(f"<{name}{shown}>{inside}</{name}>")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, words: str, **attributes: str | float | None) -> Markup:
    return tag("text", words, x=x, y=y, **attributes)


def picture(width: float, height: float, label: str, parts: Iterable[Markup]) -> Markup:
    """A whole SVG at its own size: text is not scaled, so a narrow page gets its own picture."""
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=clean(label),
    )


def linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    inner = linear(math.log(low), math.log(high), start, end)
    return lambda value: inner(math.log(min(max(value, low), high)))


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values in [low, high]: 1-2-5 steps if they fit, else powers of ten,
    thinned where even those are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    for ticks in (fine, fine[::3], fine[::6], fine[::9]):
        inside = [tick for tick in ticks if low <= tick <= high]
        if 1 <= len(inside) <= most:
            return inside
    return [low, high]


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round values in [low, high], 1-2-5 steps apart."""
    step = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def polyline(points: Sequence[Point]) -> str:
    """Path data through the points."""
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def area(upper: Sequence[Point], lower: Sequence[Point]) -> str:
    """Path data of the closed area between two lines."""
    return polyline([*upper, *reversed(lower)]) + "Z"


def steps(points: Sequence[Point], floor: float) -> list[Point]:
    """A staircase through the points, starting at height `floor`."""
    line: list[Point] = []
    height = floor
    for x, y in points:
        line += [(x, height), (x, y)]
        height = y
    return line
