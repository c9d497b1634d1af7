"""Answers known for public traces. Needs the files; see DATA below for where they are looked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_positions import block_positions

from loadkit.analysis import analyze
from loadkit.core.errors import FormatError
from loadkit.core.trace import Trace
from loadkit.traces import read_trace

DATA = Path(os.environ.get("LOADKIT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
CONVERSATION = "mooncake_conversation_first30min.jsonl.gz"
SYNTHETIC = "mooncake_synthetic_trace.jsonl.gz"
CI, CUSTOMER = "generated/ci_mooncake.jsonl.gz", "generated/customer_mooncake.jsonl.gz"
ROUTESIM = "generated/routesim_mooncake_sample.jsonl.gz"


def data_file(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in LOADKIT_DATA")
    return DATA / name


def public_trace(name: str) -> Trace:
    return read_trace([data_file(name)])


@pytest.mark.parametrize(
    ("name", "rate"), [(CONVERSATION, 0.3409), (SYNTHETIC, 0.6396), (CI, None), (CUSTOMER, None)]
)
def test_infinite_block_hit_rate_is_one_minus_unique_share(name: str, rate: float | None) -> None:
    analysis = analyze(public_trace(name), [None])
    identity = 1 - analysis.unique_blocks / analysis.blocks
    assert analysis.infinite.block_hit_rate == pytest.approx(identity, abs=1e-12)
    assert analysis.curve[0].block_hit_rate == pytest.approx(identity, abs=1e-12)
    if rate is not None:
        assert round(identity, 4) == rate


def test_mooncake_synthetic_at_the_published_lru_capacities() -> None:
    curve = analyze(public_trace(SYNTHETIC), [1000, 10_000, 30_000, 50_000]).curve
    rates = [round(point.block_hit_rate or 0, 4) for point in curve]
    assert rates == [0.0841, 0.4239, 0.6242, 0.6396]


def chains_of(trace: Trace) -> list[list[int]]:
    bounds = zip(trace.block_ptr[:-1], trace.block_ptr[1:], strict=True)
    return [trace.block_ids[start:end].tolist() for start, end in bounds]


def direct_lru(trace: Trace, capacity: int) -> list[bool]:
    """Whether each block is cached at its request's arrival: an OrderedDict, one capacity."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits: list[bool] = []
    for chain in chains_of(trace):
        hits += [block in cache for block in chain]
        for block in reversed(chain):
            cache[block] = None
            cache.move_to_end(block)
            if len(cache) > capacity:
                cache.popitem(last=False)
    return hits


def libcachesim_lru(trace: Trace, capacity: int) -> list[bool]:
    """The same in libcachesim."""
    libcachesim = pytest.importorskip("libcachesim")
    cache = libcachesim.LRU(cache_size=capacity, hashpower=18)

    def request(block: int) -> Any:
        return libcachesim.Request(obj_id=block + 1, obj_size=1)

    hits: list[bool] = []
    for chain in chains_of(trace):
        hits += [cache.find(request(b), update_cache=False) is not None for b in chain]
        for block in reversed(chain):
            cache.get(request(block))
    return hits


@pytest.mark.parametrize("capacity", [1, 50, 1000, 10_000, 30_000])
@pytest.mark.parametrize("name", [CONVERSATION, SYNTHETIC])
def test_the_pass_hits_block_for_block_what_a_direct_simulation_hits(
    name: str, capacity: int
) -> None:
    trace = public_trace(name)
    position = block_positions(trace)
    ours = (position > 0) & (position <= capacity)
    assert np.array_equal(ours, direct_lru(trace, capacity))


@pytest.mark.parametrize("capacity", [1000, 30_000])
def test_the_pass_hits_block_for_block_what_libcachesim_hits(capacity: int) -> None:
    trace = public_trace(SYNTHETIC)
    position = block_positions(trace)
    ours = (position > 0) & (position <= capacity)
    assert np.array_equal(ours, libcachesim_lru(trace, capacity))


def test_a_generated_file_with_two_parents_is_refused() -> None:
    with pytest.raises(FormatError, match="has another parent than in"):
        read_trace([data_file(ROUTESIM)], block_size=16)


def test_a_wrong_block_size_is_refused_with_the_one_that_fits() -> None:
    with pytest.raises(FormatError, match=r":1: .*--block-size 16"):
        read_trace([data_file(ROUTESIM)])
