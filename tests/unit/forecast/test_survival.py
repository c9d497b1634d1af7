"""Kaplan and Meier by hand, tails that continue them, and a longer run of even traffic."""

from __future__ import annotations

import numpy as np
import pytest
from trials import prefix_trial
from worlds import make_world

from loadkit.analysis.nodes import node_stream
from loadkit.forecast.survival import Gaps, lookup_gaps, survival
from loadkit.traces import TokenRequest, token_trace


def gaps(gap: list[float], found: list[bool], blocks: list[int]) -> Gaps:
    return Gaps(np.array(gap), np.array(found), np.array(blocks), np.array(gap))


def test_found_gaps_take_their_share_of_those_still_at_risk() -> None:
    # 4 blocks at risk: 1 found at 1 s (3/4 left); 1 censored at 2 s; of 2 left 1 found at 3 s.
    law = survival(gaps([1, 2, 3, 4], [True, False, True, False], [1, 1, 1, 1]), 4.0)
    at = law.at(np.array([0.5, 1, 2.5, 3, 9]))
    assert at.tolist() == pytest.approx([1, 0.75, 0.75, 0.375, 0.375])


def test_gaps_are_weighted_by_blocks() -> None:
    law = survival(gaps([1, 2], [True, False], [3, 1]), 2.0)
    assert law.at(np.array([1.0])).tolist() == [0.25]


def test_lookups_know_when_their_blocks_were_last_used() -> None:
    prompts = [[1, 2, 3, 4, 5], [1, 2, 9, 9, 9], [1, 2, 3, 4, 5]]
    requests = [TokenRequest(p, session=i, arrival_s=5.0 + 10 * i) for i, p in enumerate(prompts)]
    found = lookup_gaps(node_stream(token_trace(requests, 2)), 5.0)
    # Blocks (1, 2), then the rest of each prompt; never found counts from the start of the log.
    assert found.gap_s.tolist() == [0, 0, 10, 10, 10, 20]
    assert found.found.tolist() == [False, False, True, False, True, True]
    assert found.blocks.tolist() == [1, 1, 1, 1, 1, 1]


def test_tails_go_on_from_the_last_trusted_point_and_never_rise() -> None:
    random = np.random.default_rng(2)
    drawn = random.lognormal(4, 1.2, 4000)
    seen = np.minimum(drawn, 400.0)
    law = survival(Gaps(seen, drawn <= 400, np.ones(4000, np.int64), seen), 320.0)
    x = np.array([320.0, 640.0, 1280.0, 5000.0])
    for tail in (law.power_tail(x), law.cure_tail(x)):
        assert tail[0] == pytest.approx(law.at(np.array([320.0]))[0], abs=1e-9)
        assert (np.diff(tail) <= 1e-9).all()
        assert (tail >= 0).all()


def test_half_an_hour_of_even_traffic_tells_the_hour() -> None:
    trial = prefix_trial(make_world("org_tree", 4, 0.3), 0.5)
    assert trial.refused is None
    assert trial.error is not None
    assert np.abs(trial.error).max() < 0.04
    assert trial.covered.all()
