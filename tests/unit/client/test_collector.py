"""A run's garbage collection: what was there before it is left alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from loadkit.client.collector import THRESHOLD, calm_collector


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_a_collection_during_the_run_does_not_go_through_the_plan() -> None:
    plan = [[number] for number in range(1000)]
    calm_collector()
    made = [[number] for number in range(3)]
    looked_at = {id(one) for one in gc.get_objects()}
    assert looked_at.isdisjoint(map(id, plan))
    assert looked_at.issuperset(map(id, made))
    assert gc.get_threshold()[0] == THRESHOLD
