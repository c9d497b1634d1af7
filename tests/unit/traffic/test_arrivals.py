"""Start times: each shape against its formula, and the processes against their moments."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

import pytest
from traffic_profiles import CONVERSATION, profile_of

from loadkit.core.errors import InputError
from loadkit.profiles import Profile
from loadkit.traffic.arrivals import StageEdge, stage_edges, start_times
from loadkit.traffic.build import build_plan


def profile(count: int = 10, **arrivals: Any) -> Profile:
    traffic = CONVERSATION | {"sessions": count}
    return profile_of(traffic, {"loop": "open", "process": "constant"} | arrivals)


def times(count: int, **arrivals: Any) -> list[float]:
    return start_times(profile(**arrivals).arrivals, count, seed="1", where="test")


def gaps(starts: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0.0, *starts])]


def test_constant_arrivals_come_at_equal_gaps_from_0_on() -> None:
    assert times(4, rate_per_s=4) == [0, 0.25, 0.5, 0.75]


def test_a_ramp_from_0_to_2_in_10_s_has_had_n_arrivals_after_sqrt_10_n_seconds() -> None:
    """The rate is t/5, its integral t^2/10."""
    starts = times(10, ramp={"from_per_s": 0, "to_per_s": 2, "over_s": 10})
    assert starts == pytest.approx([math.sqrt(10 * number) for number in range(10)])


def test_after_a_ramp_the_rate_stays() -> None:
    """The ramp brings 10 arrivals in 10 s; those after it come every half second."""
    starts = times(14, ramp={"from_per_s": 0, "to_per_s": 2, "over_s": 10})
    assert starts[10:] == pytest.approx([10, 10.5, 11, 11.5])


def test_a_ramp_may_go_down() -> None:
    """The rate is 2 - t/10, its integral 2t - t^2/20, which is 15 at t = 10."""
    starts = times(16, ramp={"from_per_s": 2, "to_per_s": 1, "over_s": 10})
    assert starts[15] == pytest.approx(10)


def test_hours_with_weights_get_their_share_of_the_arrivals() -> None:
    """Weights 1, 0, 3 at a mean of 2/s over 30 s: 15 + 0 + 45 arrivals, the same the next day."""
    diurnal = {"mean_per_s": 2, "period_s": 30, "hourly": [1, 0, 3], "source": "test"}
    starts = times(120, diurnal=diurnal)
    hours = [sum(at * 10 <= start < (at + 1) * 10 for start in starts) for at in range(6)]
    assert hours == [15, 0, 45, 15, 0, 45]


def test_a_sinus_is_lowest_at_the_start_and_has_its_mean_over_a_day() -> None:
    """With amplitude 1 the integral is m (t - sin(2 pi t / T) T / 2 pi): 9.08% in a quarter."""
    diurnal = {"mean_per_s": 10, "period_s": 100, "amplitude": 1, "source": "test"}
    starts = times(1001, diurnal=diurnal)
    assert starts[1000] == pytest.approx(100)
    assert starts[500] == pytest.approx(50)
    quarter = sum(start < 25 for start in starts)
    assert quarter == pytest.approx(1000 * (0.25 - 1 / (2 * math.pi)), abs=1.5)


def test_stages_follow_each_other_and_end_the_schedule() -> None:
    """Four arrivals in 2 s, then ten in 1 s; the session for what comes later is not sent."""
    stages = [{"rate_per_s": 2, "duration_s": 2}, {"rate_per_s": 10, "duration_s": 1}]
    starts = times(20, stages=stages)
    assert starts == pytest.approx([0, 0.5, 1, 1.5, *(2 + 0.1 * number for number in range(10))])
    assert len(build_plan(profile(20, stages=stages)).sessions) == 14


def test_too_few_sessions_for_the_stages_are_refused_with_how_many_are_needed() -> None:
    stages = [{"rate_per_s": 10, "duration_s": 10}]
    with pytest.raises(InputError, match=r"20 sessions end at .*ask for about 140"):
        times(20, stages=stages)


def test_the_edges_of_stages_begin_after_priming() -> None:
    stages = [{"rate_per_s": 1, "duration_s": 5}, {"rate_per_s": 2, "duration_s": 7}]
    assert stage_edges(profile(stages=stages)) == [StageEdge(0, 5, 1), StageEdge(5, 12, 2)]
    primed = profile_of(
        CONVERSATION | {"sessions": 30},
        {"loop": "open", "stages": stages},
        priming={"what": "system_prompts", "lead_s": 3},
    )
    assert [edge.start_s for edge in stage_edges(primed)] == [3, 8]
    assert stage_edges(profile(rate_per_s=1)) == []


def test_poisson_gaps_have_the_rate_and_a_coefficient_of_variation_of_1() -> None:
    between = gaps(times(20_000, process="poisson", rate_per_s=5))
    assert fmean(between) == pytest.approx(0.2, rel=0.03)
    assert pstdev(between) / fmean(between) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_gamma_gaps_have_the_rate_and_vary_by_1_over_the_root_of_the_burstiness(
    burstiness: float,
) -> None:
    between = gaps(times(20_000, process="gamma", rate_per_s=5, burstiness=burstiness))
    assert fmean(between) == pytest.approx(0.2, rel=0.05)
    assert pstdev(between) / fmean(between) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_an_inhomogeneous_poisson_process_has_its_counts_in_each_piece() -> None:
    """Rates 1 and 9 for 500 s each: counts are Poisson with those means, within 4 deviations."""
    stages = [{"rate_per_s": 1, "duration_s": 500}, {"rate_per_s": 9, "duration_s": 500}]
    starts = times(6000, process="poisson", stages=stages)
    early = sum(start < 500 for start in starts)
    assert abs(early - 500) < 4 * math.sqrt(500)
    assert abs(len(starts) - early - 4500) < 4 * math.sqrt(4500)


@pytest.mark.parametrize(
    ("arrivals", "says"),
    [
        ({"rate_per_s": 1, "ramp": {"from_per_s": 1, "to_per_s": 2, "over_s": 3}}, "not both"),
        ({"process": "gamma", "rate_per_s": 1}, "need `burstiness`"),
        ({"process": "poisson", "rate_per_s": 1, "burstiness": 2}, "take no `burstiness`"),
        ({"process": "log", "rate_per_s": 1}, "`rate_per_s` would have no effect"),
        ({"process": "poisson"}, "need `rate_per_s`"),
        (
            {"diurnal": {"mean_per_s": 1, "hourly": [0, 0], "source": "x"}},
            "must not be negative, nor all 0",
        ),
    ],
)
def test_arrivals_that_contradict_themselves_are_refused(
    arrivals: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        profile(**arrivals)
