"""What a server's /metrics tell of its cache becomes the run's, unless somebody else knows better."""

from __future__ import annotations

from typing import Any

import pytest
from run_builders import context

from loadkit.client.cache_setup import CacheSetup
from loadkit.core.errors import InputError
from loadkit.locust_users.preparing import take_setup
from loadkit.runs.context import RunContext


def taken(setup: CacheSetup, **known: Any) -> RunContext:
    run = context(**known)
    take_setup(run, setup)
    return run


def test_capacity_is_that_of_one_engine() -> None:
    run = taken(CacheSetup(2, 16, 4000, True))
    assert (run.engines, run.block_size, run.capacity_blocks) == (2, 16, 2000)
    assert run.prefix_caching is True


def test_what_the_model_card_says_stays() -> None:
    run = taken(CacheSetup(1, 16, 399), block_size=16, capacity_blocks=400)
    assert (run.block_size, run.capacity_blocks) == (16, 400)


def test_what_is_not_told_stays_unknown() -> None:
    run = taken(CacheSetup(1))
    assert (run.block_size, run.capacity_blocks, run.prefix_caching) == (None, None, None)
    assert taken(CacheSetup(1), block_size=32).block_size == 32


def test_a_hybrids_block_size_and_places_are_the_runs() -> None:
    run = taken(CacheSetup(1, 528, None, True, (1,)))
    assert (run.block_size, run.capacity_blocks, run.kept_blocks) == (528, None, (1,))
    with pytest.raises(InputError, match="blocks of 528 tokens, --block-size says 16"):
        taken(CacheSetup(1, 528), block_size=16)


def test_another_block_size_than_the_servers_is_refused() -> None:
    with pytest.raises(InputError, match="blocks of 16 tokens, --block-size says 32"):
        taken(CacheSetup(1, 16), block_size=32)
