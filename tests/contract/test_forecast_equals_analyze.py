"""A forecast at the log's own traffic is what `analyze` counts: every format, engine and tail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_samples import BLOCK_SIZE, PER_REQUEST, TAILS, Row, rows_of, write

from loadkit.analysis import analyze
from loadkit.analysis.curve import POINT_CAUSES, CurvePoint, hit_curve
from loadkit.analysis.engines import ENGINES
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.answers import Asked, answers
from loadkit.analysis.simulate.engine_pools import POOLS
from loadkit.analysis.simulate.policies import simulate
from loadkit.analysis.simulate.tiers import simulate_tiers
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.forecast import Forecast, forecast
from loadkit.traces import FORMATS, read_log

CAPACITIES = (1, 2, 3, 5, 8, None)
FORECAST_ENGINES = tuple(engine for engine in ENGINES if engine != "llamacpp")


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("format", FORMATS)
def test_a_forecast_at_the_logs_own_traffic_equals_the_analysis(
    format: str, engine: str, tail: str, tmp_path: Path, letters: Tokenizer
) -> None:
    path = write(tmp_path / "log.jsonl", rows_of(format, tail))
    trace = read_log([path], block_size=BLOCK_SIZE, tokenizer=letters).trace
    check_analysis(trace, engine)
    if engine == "llamacpp":
        with pytest.raises(InputError, match="slots"):
            forecast(trace, 1, engine=engine)
    else:
        check_equal(trace, engine)


def check_analysis(trace: Trace, engine: str) -> None:
    found = analyze(trace, CAPACITIES, engine)
    for point in found.curve:
        check_possible(point)
    assert found.infinite.hit_rate == found.curve[-1].hit_rate


def check_possible(point: CurvePoint) -> None:
    """No part is negative, and all parts together are the whole."""
    parts = [getattr(point, part) for part in POINT_CAUSES]
    assert all(0 <= part <= 1 for part in parts)
    assert sum(parts) == pytest.approx(1)
    assert point.hit_rate == pytest.approx(sum(parts[:4]))


def check_equal(trace: Trace, engine: str) -> None:
    """Rate, organic rate, split and curve, at every capacity."""
    counted = analyze(trace, CAPACITIES, engine)
    for point in counted.curve:
        told = forecast(trace, 1, point.capacity_blocks, engine=engine, curve_blocks=CAPACITIES)
        assert told.status == "ok"
        assert told.hit_rate.estimate == point.hit_rate
        assert {part: getattr(told.split, part) for part in POINT_CAUSES} == {
            part: getattr(point, part) for part in POINT_CAUSES
        }
        assert told.curve == counted.curve
    infinite = counted.infinite
    assert told.organic_hit_rate.estimate == infinite.organic_hit_rate
    assert told.baselines.own_rate == infinite.hit_rate


# --- logs of ids, made at random ----------------------------------------------------------------


@st.composite
def id_logs(draw: st.DrawFn) -> list[Row]:
    """Mooncake rows over two block values; each row's ids cover its partial tail or do not."""
    rows: list[Row] = []
    for at in range(draw(st.integers(2, 12))):
        blocks = draw(st.lists(st.integers(1, 2), max_size=4))
        length = BLOCK_SIZE * len(blocks) + draw(st.integers(0, BLOCK_SIZE - 1))
        if length % BLOCK_SIZE and draw(st.booleans()):
            blocks = [*blocks, draw(st.integers(1, 2))]
        rows.append(
            {
                "timestamp": 1000 * at,
                "input_length": length,
                "output_length": 1,
                "hash_ids": [int("".join(map(str, blocks[: k + 1]))) for k in range(len(blocks))],
                "session_id": f"s{draw(st.integers(0, 3))}",
            }
        )
    return rows


def trace_of(rows: list[Row], folder: Path) -> Trace:
    return read_log([write(folder / "log.jsonl", rows)], block_size=BLOCK_SIZE).trace


@settings(max_examples=60, deadline=None)
@given(rows=id_logs(), engine=st.sampled_from(FORECAST_ENGINES))
def test_any_log_of_ids_is_forecast_as_it_is_analyzed(
    rows: list[Row], engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trace = trace_of(rows, tmp_path_factory.mktemp("ids"))
    if not trace.prompt_tokens.sum():
        return
    check_analysis(trace, engine)
    check_equal(trace, engine)
    reuse = reuse_of(trace, engine)
    for capacity in CAPACITIES:
        counted = hit_curve(reuse).split(capacity)
        assert counted == simulate(reuse, "lru", capacity).requests.total()
        assert counted == per_request_of(reuse, capacity).total()


@settings(max_examples=60, deadline=None)
@given(rows=id_logs())
def test_ids_as_given_hit_what_the_prompt_has_and_never_more(
    rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trace = trace_of(rows, tmp_path_factory.mktemp("ids"))
    seen: set[int] = set()
    hit = 0
    for row in rows:
        ids = row["hash_ids"]
        known = next((k for k, one in enumerate(ids) if one not in seen), len(ids))
        hit += min(known * BLOCK_SIZE, row["input_length"])
        seen.update(ids)
    total = sum(row["input_length"] for row in rows)
    told = forecast(trace, 1, engine="none") if total else None
    assert told is None or told.hit_rate.estimate == hit / total


# --- every other question about such a log ------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """150 sessions of two turns over 20 minutes; a third of the ids cover a partial tail."""
    random = np.random.default_rng(11)
    rows: list[Row] = []
    for at in range(150):
        opening = [1, *random.integers(1, 4, 2).tolist()]
        for turn in range(2):
            blocks = [*opening, *random.integers(1, 4, turn + 1).tolist()]
            tail = int(random.integers(0, 3))  # no tail, one not covered, one covered
            ids = [int("".join(map(str, blocks[: k + 1]))) for k in range(len(blocks))]
            length = BLOCK_SIZE * len(blocks) + (0, 3, -3)[tail]
            rows.append(
                {
                    "timestamp": 8000 * at + 3000 * turn,
                    "input_length": length,
                    "output_length": 2,
                    "hash_ids": ids,
                    "session_id": f"s{at}",
                }
            )
    rows.sort(key=lambda row: row["timestamp"])
    return trace_of(rows, tmp_path_factory.mktemp("mixed"))


SCENARIOS: tuple[dict[str, Any], ...] = (
    {"traffic": 2.0},
    {"traffic": 3.5, "capacity_blocks": 20},
    {"traffic": 0.5},
    {"traffic": 1.0, "ttl_s": 20.0},
    {"traffic": 1.0, "replicas": 2, "routing": "random"},
    {"traffic": 2.0, "replicas": 3, "routing": "prefix-aware"},
    {"traffic": 2.0, "replicas": 2, "routing": "sticky", "ttl_s": 60.0},
    {"traffic": 1.0, "horizon_s": 300.0},
    {"traffic": 1.0, "horizon_s": 3600.0},
)


@pytest.mark.parametrize("asked", SCENARIOS, ids=str)
@pytest.mark.parametrize("engine", FORECAST_ENGINES)
def test_no_forecast_of_such_a_log_says_an_impossible_number(
    engine: str, asked: dict[str, Any], mixed: Trace
) -> None:
    options = dict(asked)
    told = forecast(mixed, options.pop("traffic"), engine=engine, **options)
    assert told.hit_rate.estimate is not None
    check_forecast(told)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_simulation_of_such_a_log_says_an_impossible_number(engine: str, mixed: Trace) -> None:
    asked = Asked(
        capacities=(3, 10, None),
        policies=("lru", "lfu", "gdsf"),
        ttls_s=(10.0,),
        fixed_ttls_s=(10.0,),
        tiers=(5, 10),
        slots=4,
        latency_s=20.0,
    )
    reuse = reuse_of(mixed, engine)
    if engine in POOLS:
        for point in analyze(mixed, (10, 20), engine, latency_s=20.0).curve:
            check_possible(point)
    for points in answers(reuse, asked).values():
        for point in points:
            rates = {key: point[key] for key in (*POINT_CAUSES, "hit_rate") if key in point}
            assert all(0 <= rate <= 1 for rate in rates.values()), point
    assert simulate(reuse, "lru", None).requests.total() == hit_curve(reuse).split(None)


def test_shared_prefixes_have_the_tokens_that_prompts_have(tmp_path: Path) -> None:
    """Three prompts of 3 tokens, all one partial block; then 5 tokens, the first 4 a block."""
    ids = ([1], [1], [1], [2, 3], [2, 3])
    rows = [
        {"timestamp": 1000 * at, "input_length": 3 if len(chain) == 1 else 5, "output_length": 1,
         "hash_ids": chain, "session_id": f"s{at}"}
        for at, chain in enumerate(ids)
    ]  # fmt: skip
    found = analyze(trace_of(rows, tmp_path), engine="none")
    shared = found.diversity.leaderboard
    assert [(one.tokens, one.hit_tokens) for one in shared] == [(3, 6), (5, 5)]
    assert found.infinite.hit_rate == 11 / 19


def test_tiers_together_hit_what_one_cache_of_their_size_hits(mixed: Trace) -> None:
    reuse = reuse_of(mixed, "none")
    tiers = simulate_tiers(reuse, [5, 10])
    assert tiers.requests.total() == hit_curve(reuse).split(15)
    assert int(tiers.tier_tokens.sum()) == tiers.requests.total().hit


def test_refreshed_expiry_is_one_pass_and_equals_its_simulation(mixed: Trace) -> None:
    reuse = reuse_of(mixed, "none")
    hits = weighted_hits(reuse.stream, [15], [20.0])
    direct = simulate(reuse, "lru", 15, ttl_s=20.0, refresh=True)
    assert hits.split(0) == direct.requests.total()


def check_forecast(told: Forecast) -> None:
    rates = [told.hit_rate.estimate, told.hit_rate.low, told.hit_rate.high, told.warm_hit_rate]
    rates += [told.organic_hit_rate.estimate, *vars_of(told.split), *vars_of(told.baselines)]
    for point in told.curve:
        rates += [point.hit_rate, *(getattr(point, part) for part in POINT_CAUSES)]
    assert all(0 <= rate <= 1 for rate in rates if rate is not None)


def vars_of(struct: Any) -> list[float | None]:
    return [getattr(struct, name) for name in struct.__struct_fields__]


def test_formats_of_ids_have_every_tail() -> None:
    """What the test above stands on: the covered tail is one id more."""
    for format in ("mooncake", "bailian", "hashed"):
        assert format in PER_REQUEST
        key = "hashes" if format == "hashed" else "hash_ids"
        counts = [[len(row[key]) for row in rows_of(format, tail)] for tail in TAILS]
        assert counts[0] == [count + 1 for count in counts[1]] == [c + 1 for c in counts[2]]
