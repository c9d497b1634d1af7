"""The load machine's own stalls: told, noted, and past a limit the end of the run's timings."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_builders import answered, context, journal

from loadkit.client.stalls import StallReport
from loadkit.runs.folder import finish_run


def report(p99_s: float, *, cpu_s: float = 1.0, samples: int = 1000) -> StallReport:
    return StallReport(
        samples=samples, num_stalls=3, p99_s=p99_s, max_s=2 * p99_s, cpu_s=cpu_s, wall_s=10.0
    )


@pytest.mark.parametrize(
    ("p99_s", "codes", "noted"), [(0.01, [], 0), (0.1, [], 1), (1.1, ["invalid_timing"], 0)]
)
def test_the_worst_worker_decides(
    work: Path, tmp_path: Path, p99_s: float, codes: list[str], noted: int
) -> None:
    journal(work, 0, [answered("a", 0, 0.0, connect_s=0.002)])
    known = context(scheduled=1, stalls=[report(0.001), report(p99_s)])
    run = finish_run(work, tmp_path / "run", known)
    assert [reason["code"] for reason in run["reasons"]] == codes
    assert sum("timing is coarse" in note for note in run["notes"]) == noted
    assert run["loop_stalls"] == {"count": 6, "longest_s": 2 * p99_s, "p99_s": p99_s}
    assert [worker["cpu_share"] for worker in run["client"]["workers"]] == [0.1, 0.1]
    assert run["client"]["connect_s"]["max"] == 0.002


def test_a_worker_that_used_up_its_core_is_noted(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    known = context(scheduled=1, stalls=[report(0.001, cpu_s=9.5)])
    run = finish_run(work, tmp_path / "run", known)
    assert run["status"] == "ok"
    assert any("a worker used 95% of a core" in note for note in run["notes"])


def test_a_run_that_nobody_observed_says_so(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    assert finish_run(work, tmp_path / "run", context(scheduled=1))["loop_stalls"] is None


def test_a_p99_of_a_few_wake_ups_is_no_reason(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    known = context(scheduled=1, stalls=[report(1.5, samples=999)])
    run = finish_run(work, tmp_path / "run", known)
    assert (run["status"], run["loop_stalls"]["p99_s"]) == ("ok", 1.5)
