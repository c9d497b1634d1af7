"""The loop-stall monitor on a clock that is turned by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadkit.client.stalls import StallMonitor


def test_each_wake_up_is_late_by_what_the_sleep_took_too_long() -> None:
    """Sleeps of 10 ms that take 10, 11 and 60: late by 0, 1 and 50 ms, one of them a stall."""
    now, lengths = [100.0], iter([0.010, 0.011, 0.060])

    def sleep(_: float) -> None:
        now[0] += next(lengths)
        if now[0] > 100.08:
            monitor.stop()

    monitor = StallMonitor(clock=lambda: now[0], sleep=sleep, cpu_clock=lambda: now[0] / 4)
    monitor.run()
    report = monitor.report()
    assert (report.samples, report.num_stalls) == (3, 1)
    assert report.max_s == pytest.approx(0.050)
    assert report.p99_s == pytest.approx(0.050)
    assert report.wall_s == pytest.approx(0.081)
    assert report.cpu_s == pytest.approx(0.081 / 4)


def test_the_p99_is_exact_to_five_percent_and_never_above_the_greatest() -> None:
    monitor = StallMonitor()
    for late_ms in range(1, 101):
        monitor.observe(late_ms / 1000)
    report = monitor.report()
    assert report.p99_s is not None
    assert 0.099 <= report.p99_s <= 0.099 * 1.05
    assert report.max_s == 0.1
    assert report.num_stalls == 90


def test_nothing_seen_is_none_and_early_or_huge_is_no_trouble() -> None:
    assert StallMonitor().report().p99_s is None
    assert StallMonitor().report().max_s is None
    monitor = StallMonitor()
    for late_s in early_and_huge():
        monitor.observe(late_s)
    assert monitor.report().max_s == 1e9
    assert monitor.report().samples == 2


def early_and_huge() -> Iterator[float]:
    yield -1.0
    yield 1e9
