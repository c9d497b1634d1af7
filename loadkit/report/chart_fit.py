"""TTFT measured, by the model at the run's own rate, and at the rate asked for; below, residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from loadkit.report.charts import BOTTOM, LEFT, NAMES, RIGHT, TOP, axes
from loadkit.report.fit import SHARES, Answer, Fit
from loadkit.report.svg import Scale, area, linear, log_ticks, logarithmic, picture, polyline, tag
from loadkit.report.svg import text as words_at
from loadkit.report.words import milliseconds, percent, short_time

_STRIP, _GAP = 74, 30


def fit_chart(found: Fit, width: float, height: float = 380) -> Markup:
    """Above: share of requests within a time. Below: each request's measured / predicted TTFT."""
    x = logarithmic(*_span(found), LEFT, width - RIGHT)
    floor = height - BOTTOM - _STRIP - _GAP
    y = linear(0, 1, floor, TOP)
    parts = axes(x, y, (), short_time, width, height)
    answer = found.answer if found.answer and found.answer.ttft_s else None
    if answer:
        band = area(_line(answer.low_s, x, y), _line(answer.high_s, x, y))
        parts.append(tag("path", tag("title", "interval"), d=band, class_="band"))
    if found.why_not is None:
        parts.append(tag("path", d=polyline(_line(found.own_s, x, y)), class_="line-own"))
    parts.append(tag("path", d=polyline(_line(found.measured_s, x, y)), class_="line"))
    if answer:
        parts.append(tag("path", d=polyline(_line(answer.ttft_s, x, y)), class_="line-expected"))
    parts += _medians(found, answer, x, y(0.5))
    parts += _residuals(found, x, floor + _GAP, width)
    return picture(width, height, _spoken(found), [*parts, *_times(found, x, width, height)])


def _line(seconds: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    return [(x(time), y(float(share))) for time, share in zip(seconds, SHARES, strict=True)]


def _span(found: Fit) -> tuple[float, float]:
    """All that is drawn but the slowest hundredth."""
    answer = found.answer
    ends = [*found.measured_s[::98], *found.own_s[::98]]
    ends += [*answer.low_s[::98], *answer.high_s[::98]] if answer else []
    return min(ends) / 1.15, max(ends) * 1.15


def _medians(found: Fit, answer: Answer | None, x: Scale, y: float) -> list[Markup]:
    """The time that half of the requests are within, outward of the two lines."""
    here = found.measured_s[49]
    there = answer.ttft_s[49] if answer else None
    parts = [_median(here, there is None or there <= here, x, y)]
    return parts if there is None else [*parts, _median(there, there > here, x, y)]


def _median(seconds: float, to_the_right: bool, x: Scale, y: float) -> Markup:
    to_the_right = to_the_right or x(seconds) < LEFT + 70  # else over the names of the shares
    side, anchor = (9, "start") if to_the_right else (-9, "end")
    words = {"class_": "mark-text halo", "text_anchor": anchor}
    return tag(
        "g",
        tag("circle", cx=x(seconds), cy=y, r=5, class_="mark-dot"),
        words_at(x(seconds) + side, y + 4, milliseconds(seconds), **words),
    )


def _residuals(found: Fit, x: Scale, top: float, width: float) -> list[Markup]:
    """Measured / predicted on a log scale, 1 in the middle; farther ones are drawn at the edge."""
    most = 3.0
    y = linear(-math.log(most), math.log(most), top + _STRIP, top)
    parts = []
    for ratio, name in ((0.5, "½"), (1.0, "1"), (2.0, "2")):
        at = y(math.log(ratio))
        parts.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(words_at(LEFT - 6, at + 4, name, class_="quiet", text_anchor="end"))
    for seconds, ratio, cause in found.points:
        shape = cause if cause in NAMES else "miss"
        at = y(math.log(min(max(ratio, 1 / most), most)))
        told = (
            f"{NAMES.get(cause, 'no cause known')}: {milliseconds(seconds)}, {ratio:.2f} of model"
        )
        dot = tag("circle", tag("title", told), cx=x(seconds), cy=at, r=3, class_=f"dot-{shape}")
        parts.append(dot)
    head = "measured / model"
    return [*parts, words_at(LEFT, top - 6, head, class_="quiet")]


def _times(found: Fit, x: Scale, width: float, height: float) -> list[Markup]:
    parts = [
        words_at(x(t), height - BOTTOM + 16, short_time(t), class_="quiet", text_anchor="middle")
        for t in log_ticks(*_span(found), max(2, int(width / 80)))
    ]
    middle = (LEFT + width) / 2
    name = "time to first token"
    return [*parts, words_at(middle, height - 6, name, class_="quiet", text_anchor="middle")]


def _spoken(found: Fit) -> str:
    head = f"{found.label}: time to first token of {found.n} requests, median"
    head += f" {milliseconds(found.measured_s[49])}"
    if found.why_not:
        return f"{head}; no model: {found.why_not}"
    if found.answer is None:
        return head
    rate = percent(found.answer.hit_rate, 0)
    told = found.answer.why_not or milliseconds(found.answer.ttft_s[49])
    return f"{head}; at a hit rate of {rate}: {told}"
