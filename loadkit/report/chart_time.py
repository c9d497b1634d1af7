"""Hit rate over the run's time as a picture: stacked causes a window, the rate so far as a line."""

from __future__ import annotations

from markupsafe import Markup

from loadkit.report.charts import BOTTOM, LEFT, NAMES, RIGHT, TOP, axes
from loadkit.report.svg import linear, picture, polyline, round_ticks, tag, text
from loadkit.report.timeline import Timeline
from loadkit.report.words import percent, short_time


def time_chart(times: Timeline, width: float, height: float = 240) -> Markup:
    """One column a window, as wide as the window is long; nothing where nothing was sent."""
    windows = times.windows
    start, end = windows[0].start_s, windows[-1].end_s
    x = linear(start, end, LEFT, width - RIGHT)
    y = linear(0, 1, height - BOTTOM, TOP)
    columns = []
    for window in windows:
        left, wide = x(window.start_s), max(1.0, x(window.end_s) - x(window.start_s) - 1)
        floor = 0.0
        for part, share in window.parts.items():
            if share > 0:
                words = f"{NAMES[part]}: {percent(share)} of {window.requests} requests' tokens"
                columns.append(
                    tag(
                        "rect",
                        tag("title", words),
                        x=left,
                        width=wide,
                        y=y(min(1.0, floor + share)),
                        height=y(floor) - y(min(1.0, floor + share)),
                        class_=f"fill-{part}",
                    )
                )
                floor += share
    so_far = [((x(w.start_s) + x(w.end_s)) / 2, y(w.so_far)) for w in windows]
    line = tag("path", d=polyline(so_far), class_="line")
    ticks = round_ticks(start, end, max(2, int(width / 90)))
    note = text(
        (LEFT + width) / 2, height - 6, "time after start", class_="quiet", text_anchor="middle"
    )
    label = f"{times.label}: hit rate over time, {percent(windows[0].hit_rate)} in the first"
    label += f" {short_time(windows[0].end_s - start)}, {percent(windows[-1].so_far)} over all"
    parts = [*columns, line, *axes(x, y, ticks, short_time, width, height), note]
    return picture(width, height, label, parts)
