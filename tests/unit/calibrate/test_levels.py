"""What a calibration says, from figures worked out by hand."""

from __future__ import annotations

import pytest

from loadkit.calibrate.drive import Driven, Sent
from loadkit.calibrate.levels import (
    Level,
    judge,
    parse_streams,
    percentile,
    to_json,
    trusted_streams,
)
from loadkit.client.stalls import StallReport
from loadkit.core.errors import InputError

STALLS = StallReport(samples=9, num_stalls=0, p99_s=0.001, max_s=0.002, cpu_s=0.5, wall_s=2.0)


def sent(number: int, at: float | None, lag_s: float | None = 0.001) -> Sent:
    return Sent(f"s{number}", "ok" if at is not None else "cut", at, 25, lag_s)


def test_errors_are_the_clients_time_minus_the_servers() -> None:
    """Sent at 10.0 and seen 1, 2 and 30 ms later; 75 events in half a second of processor time."""
    rows = [sent(0, 10.001), sent(1, 10.002), sent(2, 10.030)]
    level = judge(50, Driven(rows, STALLS), {"s0": 10.0, "s1": 10.0, "s2": 10.0})
    assert level.ttft_error_p50_s == pytest.approx(0.002)
    assert level.ttft_error_p99_s == pytest.approx(0.030)
    assert (level.requests, level.failed) == (3, 0)
    assert level.events_per_cpu_s == 150
    assert level.cpu_share == 0.25
    assert level.read_lag_p99_s == 0.001


def test_what_was_not_seen_is_none_and_failures_are_not_trusted() -> None:
    level = judge(1, Driven([sent(0, None, None)], STALLS), {})
    assert level.ttft_error_p50_s is None
    assert level.read_lag_p50_s is None
    assert level.failed == 1
    assert not level.is_trusted


def level(streams: int, p50_s: float, p99_s: float, failed: int = 0) -> Level:
    return Level(
        streams=streams,
        requests=9,
        failed=failed,
        ttft_error_p50_s=p50_s,
        ttft_error_p99_s=p99_s,
        read_lag_p50_s=None,
        read_lag_p99_s=None,
        events_per_cpu_s=None,
        cpu_share=None,
        stall_p99_s=None,
        stall_max_s=None,
    )


def test_trust_ends_at_the_first_level_that_is_late() -> None:
    good, late = level(1, 0.0001, 0.009), level(200, 0.0001, 0.011)
    assert trusted_streams([level(1000, 0.0001, 0.009), late, level(50, 0.001, 0.01), good]) == 50
    assert trusted_streams([level(1, 0.0011, 0.002)]) == 0
    assert trusted_streams([level(1, 0.0001, 0.002, failed=1)]) == 0
    assert trusted_streams([]) == 0


def test_the_json_names_its_schema_and_path() -> None:
    told = to_json([level(1, 0.0001, 0.009)], kernel_stamps=True)
    assert told["schema"] == "loadkit.calibration/1"
    assert told["trusted_streams"] == 1
    assert told["levels"][0]["ttft_error_p99_s"] == 0.009


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([], 0.5) is None


def test_streams_are_a_few_whole_numbers() -> None:
    assert parse_streams("1, 50,200") == [1, 50, 200]
    for bad in ("", "0", "1,x", "-1", "1.5", "99999999999", ",".join(["1"] * 21)):
        with pytest.raises(InputError):
            parse_streams(bad)
