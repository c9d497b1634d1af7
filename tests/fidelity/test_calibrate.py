"""`loadkit calibrate` with real processes: the client as a load worker has it, and the truth."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from loadkit.calibrate.run import calibrate


@pytest.mark.parametrize("kernel_stamps", [True, False])
def test_no_token_is_seen_before_it_was_sent(kernel_stamps: bool) -> None:
    (level,) = calibrate([5], 0.1, kernel_stamps=kernel_stamps)
    assert (level.requests, level.failed) == (5, 0)
    assert level.ttft_error_p50_s is not None
    assert 0 <= level.ttft_error_p50_s < 0.4  # the last of 25 tokens would be 0.48 s late
    assert (level.read_lag_p50_s is not None) == (kernel_stamps and sys.platform == "linux")
    assert level.events_per_cpu_s is not None


def test_the_command_prints_one_object_and_its_exit_code_agrees() -> None:
    command = [sys.executable, "-m", "loadkit", "calibrate", "--streams", "2", "--seconds", "0.1"]
    done = subprocess.run([*command, "--json"], capture_output=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["schema"] == "loadkit.calibration/1"
    assert [level["streams"] for level in told["levels"]] == [2]
    assert done.returncode == (0 if told["trusted_streams"] else 3)
