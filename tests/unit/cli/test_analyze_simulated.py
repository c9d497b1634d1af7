"""`loadkit analyze` with engine rules and simulated caches, on logs checkable by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Call

TOKENS = [
    {"timestamp": 0, "session_id": "a", "prompt": [1, 2, 3, 4, 5, 6, 7, 8]},
    {"timestamp": 60, "session_id": "b", "prompt": [1, 2, 3, 4, 5, 6, 9]},
    {"timestamp": 400, "session_id": "a", "prompt": [1, 2, 3, 4, 5, 6, 7, 8]},
]
IDS = [
    {"timestamp": 1000 * n, "input_length": 1025, "hash_ids": [1, 2, 3], "session_id": f"s{n}"}
    for n in range(2)
]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Prompts of 8, 7 and 8 tokens: the second shares 6, the third is a replay of the first."""
    path = tmp_path / "tokens.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TOKENS))
    return path


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in IDS))
    return path


def analyzed(loadkit: Call, *arguments: Any) -> dict[str, Any]:
    code, out, err = loadkit("analyze", *arguments, "--json")
    assert (code, err) == (0, "")
    data: dict[str, Any] = json.loads(out)
    return data


def test_the_engine_decides_the_block_size_of_a_log_of_tokens(loadkit: Call, tokens: Path) -> None:
    """23 tokens. SGLang hits 6 and 7 of them, in pages of 4 only 4 and 4, like vLLM in blocks of 4."""
    single = analyzed(loadkit, tokens, "--engine", "sglang")
    assert (single["engine"], single["block_size"]) == ("sglang", 1)
    assert single["infinite"]["hit_rate"] == 13 / 23
    paged = analyzed(loadkit, tokens, "--engine", "sglang", "--page-size", "4")
    assert paged["infinite"]["hit_rate"] == 8 / 23
    assert analyzed(loadkit, tokens, "--block-size", "4")["infinite"]["hit_rate"] == 8 / 23


def test_a_forecast_follows_the_engines_pages_too(loadkit: Call, tokens: Path) -> None:
    rates = []
    for options in (("sglang",), ("sglang", "--page-size", "4"), ("vllm", "--block-size", "4")):
        code, out, _ = loadkit("forecast", tokens, "--json", "--engine", *options)
        assert code == 0
        forecast = json.loads(out)
        assert forecast["scenario"]["engine"] == options[0]
        rates.append(forecast["hit_rate"]["estimate"])
    assert rates == [13 / 23, 8 / 23, 8 / 23]


def test_llama_cpps_slots_are_simulated_with_that_engine(loadkit: Call, tokens: Path) -> None:
    """One slot: the second prompt overwrites what the third needs, 6 tokens stay."""
    data = analyzed(loadkit, tokens, "--engine", "llamacpp", "--slots", "1")
    (slots,) = data["slots"]
    assert (slots["slots"], slots["similarity"]) == (1, 0.1)
    assert slots["hit_rate"] == 12 / 23
    assert slots["miss_capacity"] == 1 / 23
    assert slots["replay_same_session"] == 6 / 23
    assert data["curve"] == []
    code, _, err = loadkit("analyze", tokens, "--engine", "llamacpp")
    assert code == 2
    assert "--slots N" in err


def test_a_log_of_ids_is_put_into_pages_or_kept_with_a_warning(loadkit: Call, ids: Path) -> None:
    paged = analyzed(loadkit, ids, "--engine", "sglang", "--page-size", "1024")
    assert (paged["block_size"], paged["infinite"]["hit_rate"]) == (1024, 1024 / 2050)
    kept = analyzed(loadkit, ids, "--engine", "sglang")
    assert any("rounded down to 512 tokens" in warning for warning in kept["warnings"])
    assert analyzed(loadkit, ids, "--engine", "none")["infinite"]["hit_rate"] == 0.5
    code, _, err = loadkit("analyze", ids, "--engine", "sglang", "--page-size", "16")
    assert code == 2
    assert "give a multiple of 512" in err


def test_policies_times_and_tiers_stand_beside_the_curve(loadkit: Call, tokens: Path) -> None:
    data = analyzed(
        loadkit, tokens, "--engine", "sglang", "--capacity", "7,inf", "--policy", "lru,diversity",
        "--ttl", "5m", "--ttl-fixed", "300,1h", "--tiers", "4,6",
    )  # fmt: skip
    assert [(p["policy"], p["capacity_blocks"]) for p in data["policies"]] == [
        ("lru", 7), ("lru", None), ("diversity", 7), ("diversity", None)
    ]  # fmt: skip
    for point, exact in zip(data["policies"], data["curve"], strict=False):
        assert point["hit_rate"] == exact["hit_rate"]
    # The third prompt comes 340 s after the second, 400 s after the first: both gone after 5 min.
    assert [p["hit_rate"] for p in data["ttl"]] == [6 / 23] * 4 + [12 / 23, 13 / 23]
    assert [p["refreshed_on_use"] for p in data["ttl"]] == [True, True] + [False] * 4
    assert [p["tier"] for p in data["tiers"]] == ["device", "host", "all"]
    assert data["tiers"][2]["capacity_blocks"] == 10


def test_the_tables_name_what_was_simulated(loadkit: Call, tokens: Path) -> None:
    code, out, _ = loadkit("analyze", tokens, "--policy", "lfu", "--tiers", "1,2", "--ttl", "1h")
    assert code == 0
    assert "\n3,600 " in out
    for title in ("Eviction policies, simulated", "Exclusive LRU tiers", "Expiry, LRU beyond it"):
        assert title in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "other"), "unknown engine 'other'"),
        (("--policy", "fifo"), "unknown policy 'fifo'"),
        (("--ttl", "soon"), "time 'soon' is not understood"),
        (("--ttl-fixed", "0"), "time '0' is not understood"),
        (("--tiers", "10,inf"), "a tier cannot be infinite"),
        (("--page-size", "4"), "pages are SGLang's"),
        (("--slots", "2"), "go together"),
        (("--latency", "1"), "latencies matter to a finite cache"),
        (("--latency", "1", "--capacity", "8", "--engine", "none"), "the rule none has no pool"),
    ],
)
def test_what_is_not_understood_is_one_line(
    loadkit: Call, tokens: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = loadkit("analyze", tokens, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_finite_cache_is_the_engines_pool_where_latencies_are_known(
    loadkit: Call, tokens: Path
) -> None:
    """Room for 9 tokens. On arrival the second prompt finds 6 of the first's, whether that has ended
    or not. On vLLM the prompts of 8 and 7 share 6 and take 9 together; with 100 s each they overlap."""
    options = ("--engine", "vllm", "--block-size", "1", "--capacity", "9,inf")
    plain = analyzed(loadkit, tokens, *options)
    assert plain["placement"]["order"] == "arrival"
    assert plain["placement"]["note"].endswith("engines place at finish: give --latency")
    timed = analyzed(loadkit, tokens, *options, "--latency", "100")
    assert timed["placement"]["order"] == "engine"
    (point,) = timed["placement"]["points"]
    assert point["hit_rate"] == timed["curve"][0]["hit_rate"]
    assert point["arrival_hit_rate"] == plain["curve"][0]["hit_rate"]
    assert timed["curve"][1] == plain["curve"][1]  # an infinite cache keeps all
    code, out, _ = loadkit("analyze", tokens, *options, "--latency", "100")
    assert code == 0
    assert "vLLM's pool in event time" in out


def test_twins_in_flight_hit_as_the_engine_lets_them(loadkit: Call, tmp_path: Path) -> None:
    """Two equal prompts of 8 tokens, 1 s apart, 10 s each. vLLM shares blocks as it schedules them, the
    reference server waits for them, SGLang computes them again: its tree has them after the prefill."""
    path = tmp_path / "twins.jsonl"
    twin = {"prompt": [1, 2, 3, 4, 5, 6, 7, 8]}
    rows = [{"timestamp": at, "session_id": str(at), **twin} for at in (0, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rates, waits = {}, {}
    for engine in ("vllm", "reference", "sglang"):
        size = ("--page-size", "1") if engine == "sglang" else ("--block-size", "1")
        data = analyzed(
            loadkit, path, "--engine", engine, *size, "--capacity", "100", "--latency", "10"
        )
        (point,) = data["placement"]["points"]
        rates[engine], waits[engine] = point["hit_rate"], point["mean_wait_s"]
    assert rates == {"vllm": 7 / 16, "reference": 7 / 16, "sglang": 0}
    assert waits == {"vllm": 0, "reference": 4.5, "sglang": 0}


def test_a_request_larger_than_the_cache_is_left_out_and_said(loadkit: Call, tokens: Path) -> None:
    data = analyzed(loadkit, tokens, "--block-size", "1", "--capacity", "7", "--latency", "1")
    assert data["placement"]["points"][0]["refused_requests"] == 2
    assert "2 requests are larger than the cache" in data["placement"]["note"]


@pytest.mark.parametrize("engine", ["vllm", "reference", "sglang"])
@pytest.mark.parametrize("latency", [(), ("--latency", "100")])
def test_the_forecast_at_1x_is_the_analysis_of_the_same_pool(
    loadkit: Call, tokens: Path, engine: str, latency: tuple[str, ...]
) -> None:
    size = ("--page-size", "1") if engine == "sglang" else ("--block-size", "1")
    options = (tokens, "--engine", engine, *size, "--capacity", "9", *latency)
    data = analyzed(loadkit, *options)
    code, out, _ = loadkit("forecast", *options, "--json")
    forecast = json.loads(out)
    assert code == 0
    assert forecast["placement"] == data["placement"]
    (point,) = data["curve"]
    assert forecast["hit_rate"]["estimate"] == point["hit_rate"]
    for part in ("replay_same_session", "continuation", "shared", "miss_compulsory"):
        assert forecast["split"][part] == point[part]
    code, out, _ = loadkit("forecast", *options)
    assert data["placement"]["note"] in " ".join(out.split())


def test_where_no_pool_is_simulated_a_forecast_says_so_and_takes_no_latency(
    loadkit: Call, tokens: Path
) -> None:
    options = (tokens, "--capacity", "9", "--block-size", "1", "--ttl", "5m")
    code, out, _ = loadkit("forecast", *options, "--json")
    assert code == 0
    assert json.loads(out)["placement"]["note"].endswith("engines' pools know no expiry")
    for other in (options, (tokens, "--horizon", "1h", "--capacity", "9"), (tokens,)):
        code, _, err = loadkit("forecast", *other, "--latency", "1")
        assert code == 2
        assert "--latency: latencies are for" in err
    code, _, err = loadkit(
        "forecast", tokens, "--traffic", "2x", "--capacity", "9", "--prefill-rate", "9"
    )
    assert (code, "needs --latency" in err) == (2, True)


def test_at_other_traffic_a_forecast_with_latencies_is_of_the_pool(
    loadkit: Call, tmp_path: Path
) -> None:
    """150 sessions of two turns begin alike. In a cache of 60 tokens SGLang computes what is in flight
    again, so that long requests hit less than short ones; the interval stays."""
    path = tmp_path / "log.jsonl"
    rows = [
        {"timestamp": 10 * n + 5 * turn, "session_id": f"s{n}",
         "prompt": [1, 2, 3, 4, 5, 6, 7, 8, *range(100 * n, 100 * n + 4 + 4 * turn)]}
        for n in range(1, 151) for turn in (0, 1)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = (path, "--engine", "sglang", "--traffic", "2x", "--capacity", "60", "--json")
    found = []
    for latency in ((), ("--latency", "1"), ("--latency", "30")):
        code, out, _ = loadkit("forecast", *options, *latency, "--target", "50")
        assert code == 0
        found.append(json.loads(out))
    plain, short, long = found
    assert plain["placement"]["note"].startswith("placed on arrival")
    (point,) = short["placement"]["points"]
    assert point["arrival_hit_rate"] == plain["hit_rate"]["estimate"]
    assert point["hit_rate"] == short["hit_rate"]["estimate"]
    assert long["hit_rate"]["estimate"] < short["hit_rate"]["estimate"] - 0.1
    parts = ("replay_same_session", "replay_cross_session", "continuation", "shared", "miss")
    assert sum(short["split"][part] for part in parts) == pytest.approx(1)
