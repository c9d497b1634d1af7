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
        "--ttl", "5m", "--ttl-fixed", "300,1h", "--tiers", "4,6", "--in-flight", "share",
        "--latency", "1",
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
    # Prompts of 8 do not run in a cache of 7.
    assert [p["hit_rate"] for p in data["in_flight"]] == [0, 13 / 23]
    assert [p["refused_requests"] for p in data["in_flight"]] == [2, 0]


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
        (("--in-flight", "maybe"), "unknown way 'maybe'"),
    ],
)
def test_what_is_not_understood_is_one_line(
    loadkit: Call, tokens: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = loadkit("analyze", tokens, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_overlap_without_latencies_cannot_be_measured(loadkit: Call, tokens: Path) -> None:
    code, _, err = loadkit("analyze", tokens, "--in-flight", "wait")
    assert code == 3
    assert "--latency SECONDS" in err
