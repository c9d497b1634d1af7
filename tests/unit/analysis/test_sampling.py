"""Sampled rates: exact when all is kept, right on average, honest about their error."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from loadkit.analysis import analyze
from loadkit.analysis.sampling import SampledAnalysis, analyze_sampled
from loadkit.analysis.sampling.choose import Chosen, TouchCounter
from loadkit.core.errors import FormatError, InputError
from loadkit.traces import read_trace
from loadkit.traces.reading import Reading

SIZES = [50, 200, 1000]


def sessions_log(seed: int, sessions: int = 120) -> list[dict[str, Any]]:
    """Hashed rows: a shared system prompt of 3 blocks, one of 5 documents of 20, up to 5 turns."""
    rng = Random(seed)
    rows = []
    for session in range(sessions):
        document = rng.randrange(5)
        chain = [1, 2, 3, *(100 * (document + 1) + k for k in range(20))]
        time_s = rng.uniform(0, 1000)
        for turn in range(rng.randint(1, 5)):
            chain = chain + [
                10_000 + 1000 * session + 20 * turn + k for k in range(rng.randint(1, 9))
            ]
            tokens = 16 * len(chain) + rng.randrange(16)
            rows.append(
                {
                    "timestamp_s": time_s,
                    "session": str(session),
                    "prompt_tokens": tokens,
                    "hashes": chain,
                    "block_size": 16,
                }
            )
            if rng.random() < 0.1:
                rows.append(rows[-1] | {"timestamp_s": time_s + 1})
            time_s += rng.uniform(2, 100)
    rng.shuffle(rows)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def sampled(path: Path, rate: float, seed: int = 0, format: str = "hashed") -> SampledAnalysis:
    return analyze_sampled(Reading([path]), format, rate, lambda size: SIZES, None, seed)


@pytest.mark.filterwarnings("error")
def test_with_all_blocks_kept_it_is_the_exact_analysis(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", sessions_log(1))
    exact, found = analyze(read_trace([path]), SIZES), sampled(path, 1)
    for name in ("hit_rate", "continuation", "shared", "replay_same_session", "organic_hit_rate"):
        assert getattr(found.infinite, name) == pytest.approx(getattr(exact.infinite, name))
    for point, known in zip(found.curve, exact.curve, strict=True):
        assert point.hit_rate == pytest.approx(known.hit_rate)
        assert point.miss_capacity == pytest.approx(known.miss_capacity, abs=1e-12)
        assert point.standard_error == 0
    assert (found.requests, found.sessions) == (exact.requests, exact.sessions)
    assert (found.blocks, found.prompt_tokens) == (exact.blocks, exact.prompt_tokens)


def test_samples_are_right_on_average_and_know_their_error(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", sessions_log(2))
    exact = analyze(read_trace([path]), SIZES)
    runs = [sampled(path, 0.2, seed) for seed in range(30)]
    known = [point.hit_rate or 0 for point in exact.curve]
    rates = np.array([[point.hit_rate for point in run.curve] for run in runs])
    spread = rates.std(axis=0, ddof=1)
    assert (np.abs(rates.mean(axis=0) - known) < 3 * spread / np.sqrt(30) + 0.003).all()
    told = np.array([[point.standard_error for point in run.curve] for run in runs]).mean(axis=0)
    assert ((0.5 * spread < told) & (told < 2 * spread)).all()


def test_only_a_part_of_the_touches_is_kept_and_the_result_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", sessions_log(3))
    data = sampled(path, 0.1).to_dict()
    kept = data["sampled"]
    assert kept["rate"] == 0.1
    light = kept["block_touches"] - kept["heavy_touches"]
    assert 0.05 * light < kept["kept_touches"] - kept["heavy_touches"] < 0.15 * light
    assert (data["append_only"], data["diversity"], data["unique_blocks"]) == (None, None, None)


def test_a_block_that_every_prompt_has_is_always_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", sessions_log(4))
    found = [sampled(path, 0.01, seed) for seed in range(5)]
    requests = found[0].requests
    assert all(run.sampled.heavy_touches >= 3 * requests for run in found)


def test_no_rate_is_above_what_the_engines_rule_allows(tmp_path: Path) -> None:
    chain = list(range(40))
    row = {"session": "a", "prompt_tokens": 640, "hashes": chain, "block_size": 16}
    path = write(tmp_path / "log.jsonl", [row] * 50)
    for seed in range(10):
        rate = sampled(path, 0.05, seed).infinite.hit_rate
        assert rate is not None
        assert rate <= 39 / 40 + 1e-12


def test_counting_stays_within_its_room_and_still_finds_the_heavy_block() -> None:
    counter = TouchCounter(seed=1, max_counted=1000)
    random = np.random.default_rng(5)
    for _ in range(100):
        ids = random.integers(10, 10**9, 500)
        ids[:50] = 7
        counter.add(ids, random.integers(0, 2**64, 500, np.uint64))
        assert counter._held <= 1000
    assert counter.num_touches == 50_000
    assert counter.heavy(rate=0.01).tolist() == [7]


def test_light_blocks_are_kept_at_the_rate_and_dealt_evenly() -> None:
    chosen = Chosen(0.05, np.array([3]), num_groups=5, seed=1)
    groups, _ = chosen.groups(np.arange(100_000))
    counts = np.bincount(groups + 2, minlength=7)
    assert counts[1] == 1
    assert abs(counts[2:].sum() - 5000) < 5 * np.sqrt(5000)
    assert (np.abs(counts[2:] - 1000) < 5 * np.sqrt(1000)).all()


def test_unsigned_ids_and_missing_sessions_are_taken(tmp_path: Path) -> None:
    rows = [{"timestamp": t, "input_length": 600, "hash_ids": [2**64 - 1, t]} for t in (0, 1)]
    path = write(tmp_path / "log.jsonl", rows)
    found = analyze_sampled(Reading([path]), "mooncake", 1.0)
    assert found.infinite.shared == pytest.approx(512 / 1200)
    assert any("no session ids" in warning for warning in found.warnings)


def test_what_cannot_be_sampled_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", sessions_log(1, sessions=3))
    for rate in (0, 1.5):
        with pytest.raises(InputError, match="at most 1"):
            sampled(path, rate)
    with pytest.raises(InputError, match="unknown format 'xml'"):
        sampled(path, 0.5, format="xml")
    wrong = write(tmp_path / "wrong.jsonl", [{"prompt_tokens": 99, "hashes": [1]}])
    with pytest.raises(FormatError, match=r"wrong.jsonl:1: 1 block ids do not fit 99 tokens"):
        sampled(wrong, 0.5)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError):
        sampled(tmp_path / "empty.jsonl", 0.5)
