"""Recorded runs on real vLLM: their logs, served from its pool by `analyze`'s own function.

`pytest tests/validation/test_engine_pools.py -s` prints the table of docs/accuracy.md.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from public_data import DATA, missing

from loadkit.analysis import analyze
from loadkit.core.tokenizer import load_tokenizer
from loadkit.traces import read_log
from reference_server.weights import prepare_default_model

RUNS = {"ev1": 1, "evs21": 1, "evs22": 1, "evs23": 1, "evs31": 4, "evs32": 4, "ev4": 6}
CAPACITY, BLOCK_SIZE = 39, 32


@pytest.fixture(scope="module")
def model() -> Path:
    """The folder whose tokenizer the recorded server had."""
    try:
        return Path(prepare_default_model())
    except Exception as error:
        pytest.skip(f"no demo model: {error}")


@pytest.mark.parametrize("name", RUNS)
def test_the_log_of_a_run_on_vllm_gives_its_hit_rate(name: str, model: Path) -> None:
    if missing(f"vllm_cpu/{name}"):
        pytest.skip("the recorded runs are not there")
    folder, tokenizer = DATA / "vllm_cpu" / name, load_tokenizer(str(model))
    log = read_log(
        [folder / "sent.jsonl.gz"], format="openai", tokenizer=tokenizer, block_size=BLOCK_SIZE
    )
    table = pq.read_table(folder / "requests.parquet", columns=["outcome", "cached_tokens"])
    reported = sum(row["cached_tokens"] for row in table.to_pylist() if row["outcome"] == "ok")
    found = analyze(log.trace, [CAPACITY], "vllm")
    assert found.placement is not None
    (point,) = found.placement.points
    assert point.hit_rate is not None
    assert point.arrival_hit_rate is not None
    rate = reported / found.prompt_tokens
    pool, arrival = (100 * (each - rate) for each in (point.hit_rate, point.arrival_hit_rate))
    print(f"{name}: {RUNS[name]} users, {rate:.2%}, pool {pool:+.2f}, on arrival {arrival:+.2f}")
    assert found.curve[0].hit_rate == point.hit_rate
    if RUNS[name] <= 4:
        assert pool == pytest.approx(0)
    else:
        assert abs(pool) < 1
