"""The report's charts, each at a given width so that its text keeps its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from loadkit.report.model import CAUSES, PARTS, Curve, Side, Waits
from loadkit.report.svg import (
    Point,
    Scale,
    area,
    linear,
    log_ticks,
    logarithmic,
    picture,
    polyline,
    steps,
    tag,
    text,
)
from loadkit.report.words import percent, short_count, short_time

NAMES = {
    "continuation": "continuation",
    "shared": "shared",
    "replay": "replay",
    "replay_cross_session": "replay (other session)",
    "replay_same_session": "replay (same session)",
    "miss": "miss",
    "miss_capacity": "miss, evicted",
    "miss_compulsory": "miss, never seen",
    "miss_unexplained": "miss, unexplained",
}
_ROW, _BAR = 78, 34
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 12, 44
_STACK = (*PARTS[:4], "miss_capacity", "miss_compulsory")


def miss_name(part: str, sides: Sequence[Side]) -> str:
    """A miss's cause in words; where the sides' caches are off, that is the name of the unexplained."""
    odd = [side for side in sides if side.misses.get("miss_unexplained")]
    if part == "miss_unexplained" and odd and all(side.caching_off for side in odd):
        return "miss, caching is off"
    return NAMES[part]


def split_bars(sides: Sequence[Side], width: float) -> Markup:
    """One bar a side, all of 100% of its prompt tokens; a dashed line at the expected hit rate."""
    rows = [_bar(side, number * _ROW, width) for number, side in enumerate(sides)]
    expected = next((s.hit_rate for s in sides if not s.measured and s.hit_rate is not None), None)
    height = len(sides) * _ROW + (0 if expected is None else 22)
    if expected is not None:
        x = expected * width
        line = tag("line", x1=x, x2=x, y1=20, y2=height - 18, class_="mark")
        anchor = "start" if x < width / 2 else "end"
        words = f"expected {percent(expected)}"
        note = text(x, height - 4, words, class_="mark-text", text_anchor=anchor)
        rows += [line, note]
    return picture(width, height, "Prompt tokens by cause: " + _spoken(sides), rows)


def _spoken(sides: Sequence[Side]) -> str:
    return "; ".join(f"{side.label}: hit rate {percent(side.hit_rate)}" for side in sides)


def _bar(side: Side, top: float, width: float) -> Markup:
    roomy = width > 500
    kind = ("  measured" if side.measured else "  forecast") if roomy else ""
    rate = f"hit rate {percent(side.hit_rate)}" if roomy else percent(side.hit_rate)
    head = [
        tag("text", tag("tspan", side.label, class_="strong"), kind, x=0, y=top + 16),
        text(width, top + 16, rate, class_="strong", text_anchor="end"),
    ]
    if side.hit_rate is None or None in side.parts.values():
        box = tag("rect", x=0, y=top + 24, width=width, height=_BAR, class_="unknown")
        words = "no split by cause is known"
        return tag("g", *head, box, text(8, top + 46, words, class_="quiet"))
    segments, x = [], 0.0
    shares = dict(side.parts)
    if side.misses:
        del shares["miss"]
        shares.update(side.misses)
    for part, known in shares.items():
        share = known or 0.0
        if share > 0:
            name = miss_name(part, [side])
            segments.append(_segment(part, name, share, x, top + 24, share * width))
            x += share * width
    return tag("g", *head, *segments, *_whisker(side, top + 24 + _BAR + 6, width))


def _whisker(side: Side, y: float, width: float) -> list[Markup]:
    """The interval of the hit rate, below the bar; nothing for a rate without one."""
    if side.low is None or side.high is None or side.low == side.high:
        return []
    low, high = side.low * width, side.high * width
    ends = ((low, low, y - 3, y + 3), (high, high, y - 3, y + 3), (low, high, y, y))
    words = f"{side.label}: interval {percent(side.low)} to {percent(side.high)}"
    lines = (tag("line", x1=a, x2=b, y1=c, y2=d, class_="whisker") for a, b, c, d in ends)
    return [tag("g", tag("title", words), *lines)]


def _segment(part: str, name: str, share: float, x: float, y: float, width: float) -> Markup:
    title = tag("title", f"{name}: {percent(share)} of prompt tokens")
    box = tag("rect", title, x=x, y=y, width=width, height=_BAR, class_=f"fill-{part}")
    name = name.split(" (")[0]
    label = f"{name} {percent(share, 0)}" if width > 7 * len(name) + 46 else percent(share, 0)
    if width < 38:
        return tag("g", box)
    middle = x + width / 2
    return tag("g", box, text(middle, y + 22, label, class_=f"on-{part}", text_anchor="middle"))


def capacity_chart(curve: Curve, width: float, height: float = 260) -> Markup:
    """Stacked shares of prompt tokens over cache size (log scale), the server's size marked."""
    first, last = _sizes(curve)
    x = logarithmic(first, last, LEFT, width - RIGHT)
    y = linear(0, 1, height - BOTTOM, TOP)
    points = [dict(point) for point in curve.points]
    if points[-1]["capacity_tokens"] < last:  # nothing changes beyond the last point
        points.append({**points[-1], "capacity_tokens": last})
    lower: list[Point] = [(x(p["capacity_tokens"]), y(0)) for p in points]
    total, parts = [0.0] * len(points), []
    for part in _STACK:
        total = [sum_ + (p[part] or 0.0) for sum_, p in zip(total, points, strict=True)]
        upper = [(x(p["capacity_tokens"]), y(t)) for p, t in zip(points, total, strict=True)]
        if any(p[part] for p in points):
            title = tag("title", NAMES[part])
            parts.append(tag("path", title, d=area(upper, lower), class_=f"fill-{part}"))
        lower = upper
    hits = [(x(p["capacity_tokens"]), y(p["hit_rate"])) for p in points]
    parts.append(tag("path", d=polyline(hits), class_="line"))
    if curve.capacity_tokens is not None:
        parts += _capacity_mark(curve.capacity_tokens, x, width, height)
    lines = axes(x, y, log_ticks(first, last, max(2, int(width / 70))), short_count, width, height)
    words = text(
        (LEFT + width) / 2, height - 6, "cache size, tokens", class_="quiet", text_anchor="middle"
    )
    return picture(
        width, height, f"{curve.label}: hit rate over cache size", [*parts, *lines, words]
    )


def _sizes(curve: Curve) -> tuple[float, float]:
    first = float(curve.points[0]["capacity_tokens"])
    last = max(float(curve.points[-1]["capacity_tokens"]), float(curve.capacity_tokens or 0))
    return first, max(last, first * 1.01)


def _capacity_mark(capacity: int, x: Scale, width: float, height: float) -> list[Markup]:
    at = x(capacity)
    anchor = "end" if at > width / 2 else "start"
    words = f"this server: {short_count(round(capacity, -2) if capacity > 9999 else capacity)}"
    return [
        tag("line", x1=at, x2=at, y1=TOP, y2=height - BOTTOM, class_="mark"),
        text(
            at + (-6 if anchor == "end" else 6),
            TOP + 14,
            words,
            class_="mark-text halo",
            text_anchor=anchor,
        ),
    ]


def axes(
    x: Scale,
    y: Scale,
    ticks: Sequence[float],
    name: Callable[[float], str],
    width: float,
    height: float,
) -> list[Markup]:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            tag("line", x1=LEFT, x2=width - RIGHT, y1=y(share), y2=y(share), class_="grid")
        )
        parts.append(
            text(LEFT - 6, y(share) + 4, percent(share, 0), class_="quiet", text_anchor="end")
        )
    for tick in ticks:
        words = name(tick)
        parts.append(
            text(x(tick), height - BOTTOM + 16, words, class_="quiet", text_anchor="middle")
        )
    return parts


def wait_chart(waits: Waits, width: float, height: float, span: Point) -> Markup:
    """Share of requests answered (first token) within a time, one staircase a cause; log time.

    span: smallest and largest time of all charts shown together, so that they can be compared.
    """
    low, high = span
    x = logarithmic(low, high, LEFT, width - RIGHT)
    y = linear(0, 1, height - BOTTOM, TOP)
    grid = axes(x, y, log_ticks(low, high, max(2, int(width / 80))), short_time, width, height)
    lines = []
    for cause in CAUSES:
        points = [(x(wait), y(share)) for wait, share in waits.ecdf[cause]]
        if points:
            title = tag("title", f"{NAMES[cause]}: n = {waits.figures[cause]['n']}")
            line = polyline(steps(points, y(0)))
            lines.append(tag("path", title, d=line, class_=f"line-{cause}"))
    words = text(
        (LEFT + width) / 2, height - 6, "time to first token", class_="quiet", text_anchor="middle"
    )
    return picture(
        width, height, f"{waits.label}: time to first token by cause", [*grid, *lines, words]
    )


def time_span(all_waits: Sequence[Waits]) -> Point | None:
    """Smallest and largest time over several runs, a little widened; None without any."""
    times = [wait for waits in all_waits for line in waits.ecdf.values() for wait, _ in line]
    positive = [wait for wait in times if wait > 0]
    return (min(positive) / 1.2, max(positive) * 1.2) if positive else None
