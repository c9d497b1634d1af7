"""TTFT over uncached tokens: this run's requests, the line through them, and each side's mark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from loadkit.report.charts import BOTTOM, NAMES, RIGHT, TOP
from loadkit.report.fit import Fit, Mark
from loadkit.report.svg import Scale, linear, picture, round_ticks, tag, text
from loadkit.report.words import milliseconds, percent, short_count, short_time

_LEFT = 58.0
_SHORT = {"Expected in production": "expected", "Production-like run": "production-like"}


def fit_chart(found: Fit, width: float, height: float = 290) -> Markup:
    """Points are requests; the line is drawn only where it is no guess; dashed: a side's mark."""
    most_x = max(point[0] for point in found.points) * 1.04 or 1.0
    most_y = _height(found)
    x = linear(0, most_x, _LEFT, width - RIGHT)
    y = linear(0, most_y, height - BOTTOM, TOP + 16)
    parts = [*_grid(x, y, most_x, most_y, width, height)]
    for tokens, seconds, cause in found.points:
        shape = cause if cause in NAMES else "miss"
        at = y(min(seconds, most_y))
        words = f"{NAMES.get(cause, 'no cause known')}: {milliseconds(seconds)}"
        point = tag(
            "circle", tag("title", words), cx=x(tokens), cy=at, r=3.2, class_=f"dot-{shape}"
        )
        parts.append(point)
    if found.why_not is None and found.base_s is not None and found.slope_s is not None:
        ends = [(0.0, found.base_s), (most_x, found.base_s + found.slope_s * most_x)]
        path = "M" + "L".join(f"{x(u):.1f},{y(min(max(s, 0), most_y)):.1f}" for u, s in ends)
        parts.append(tag("path", d=path, class_="line"))
        parts += _marks([mark for mark in found.marks if mark.ttft_s is not None], x, y, width)
    return picture(width, height, _spoken(found), parts)


def _height(found: Fit) -> float:
    """The 98th percentile of the points, and every mark: a straggler must not flatten the rest."""
    seconds = sorted(point[1] for point in found.points)
    high = seconds[min(len(seconds) - 1, math.ceil(0.98 * len(seconds)))]
    marks = [mark.high_s or mark.ttft_s or 0.0 for mark in found.marks]
    return max(high * 1.1, *(1.1 * mark for mark in marks), 1e-6)


def _grid(
    x: Scale, y: Scale, most_x: float, most_y: float, width: float, height: float
) -> list[Markup]:
    parts = []
    for tick in round_ticks(0, most_y, 5):
        parts.append(tag("line", x1=_LEFT, x2=width - RIGHT, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(
            text(_LEFT - 6, y(tick) + 4, short_time(tick), class_="quiet", text_anchor="end")
        )
    for tick in round_ticks(0, most_x, max(2, int(width / 110))):
        words = short_count(tick)
        parts.append(
            text(x(tick), height - BOTTOM + 16, words, class_="quiet", text_anchor="middle")
        )
    words = "prompt tokens not in the cache"
    middle = (_LEFT + width) / 2
    return [*parts, text(middle, height - 6, words, class_="quiet", text_anchor="middle")]


def _marks(marks: Sequence[Mark], x: Scale, y: Scale, width: float) -> list[Markup]:
    """Each with its words on a line of its own, the leftmost on the highest line."""
    parts = []
    for number, mark in enumerate(sorted(marks, key=lambda one: one.uncached_tokens)):
        at, top = x(mark.uncached_tokens), TOP + 12 + 17 * number
        assert mark.ttft_s is not None
        anchor = "start" if at < width / 2 else "end"
        name = _SHORT.get(mark.label, mark.label.lower())
        words = f"{name} {percent(mark.hit_rate, 0)}: {milliseconds(mark.ttft_s)}"
        parts += [
            tag("line", x1=at, x2=at, y1=top, y2=y(0), class_="mark"),
            tag("circle", cx=at, cy=y(mark.ttft_s), r=5, class_="mark-dot"),
            text(at + (6 if anchor == "start" else -6), top + 3, words,
                 class_="mark-text halo", text_anchor=anchor),
        ]  # fmt: skip
        if mark.low_s is not None and mark.high_s is not None:
            span = {"x1": at, "x2": at, "y1": y(mark.low_s), "y2": y(mark.high_s)}
            parts.append(tag("line", class_="whisker", **span))
    return parts


def _spoken(found: Fit) -> str:
    head = f"{found.label}: time to first token over uncached prompt tokens, n = {found.n}"
    if found.why_not:
        return f"{head}; no line: {found.why_not}"
    known = [mark for mark in found.marks if mark.ttft_s is not None]
    each = (f"{m.label} at {percent(m.hit_rate)}: {milliseconds(m.ttft_s)}" for m in known)
    return "; ".join([head, *each])
