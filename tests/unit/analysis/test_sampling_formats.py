"""Every format is sampled as a stream: with all blocks kept the rates are the exact ones."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from loadkit.analysis import analyze
from loadkit.analysis.sampling import analyze_sampled
from loadkit.analysis.sampling.choose import TouchCounter
from loadkit.analysis.sampling.heavy import HeavyBlocks
from loadkit.analysis.sampling.kept import keep
from loadkit.core.errors import FormatError, InputError
from loadkit.traces import read_trace
from loadkit.traces.reading import Reading

Rows = list[dict[str, Any]]


def bailian_rows(random: Random) -> Rows:
    """Chats of up to 3 turns; block ids are of single blocks, so the same ones follow others."""
    rows: Rows = []
    for chat in range(60):
        ids = [random.randrange(4) for _ in range(3)]
        for turn in range(random.randint(1, 3)):
            ids = [*ids, random.randrange(6)]
            rows.append(
                {
                    "chat_id": 10 * chat + turn,
                    "parent_chat_id": 10 * chat + turn - 1 if turn else -1,
                    "timestamp": float(len(rows)),
                    "input_length": 16 * len(ids) + 3,
                    "hash_ids": [*ids, 999],
                }
            )
    return rows


def weka_rows(random: Random) -> Rows:
    """Sessions whose ids mean nothing in another one."""

    def requests() -> Rows:
        turns = [random.randint(1, 5) for _ in range(3)]
        ends = [sum(turns[: k + 1]) for k in range(3)]
        return [
            {"t": 10 * k, "in": 64 * end, "hash_ids": [*range(end)]} for k, end in enumerate(ends)
        ]

    return [{"id": f"s{k}", "hash_id_scope": "local", "requests": requests()} for k in range(20)]


def openai_rows(random: Random) -> Rows:
    """Prompts of token ids in two isolation domains, with repeats."""
    rows: Rows = []
    for session in range(40):
        prompt = [1] * 40 + [random.randrange(3) for _ in range(30)]
        for _ in range(random.randint(1, 3)):
            rows.append(
                {
                    "timestamp": len(rows),
                    "session_id": session,
                    "prompt": list(prompt),
                    "cache_salt": f"tenant {session % 2}",
                }
            )
            prompt += [random.randrange(50) for _ in range(random.choice([0, 20]))]
    return rows


def mooncake_rows(random: Random) -> Rows:
    rows: Rows = []
    for row in range(60):
        ids = [0, random.randrange(1, 4)]
        ids += [10 * ids[1] + 100, 1000 + row] if random.random() < 0.7 else []
        rows.append(
            {"timestamp": 1000 * row, "input_length": 512 * len(ids) - 7, "hash_ids": ids,
             "session_id": row % 9}
        )  # fmt: skip
    return rows


@pytest.mark.parametrize("make", [bailian_rows, weka_rows, openai_rows, mooncake_rows])
def test_a_whole_sample_of_any_format_is_the_exact_analysis(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make(Random(3))))
    sizes = [3, 10, 40]
    name = make.__name__.removesuffix("_rows")
    exact = analyze(read_trace([path]), sizes)
    found = analyze_sampled(Reading([path]), name, 1.0, lambda size: sizes)
    assert (found.requests, found.sessions, found.blocks) == (
        exact.requests,
        exact.sessions,
        exact.blocks,
    )
    for cause in ("hit_rate", "continuation", "shared", "replay_same_session", "organic_hit_rate"):
        known = getattr(exact.infinite, cause)
        assert getattr(found.infinite, cause) == pytest.approx(known), cause
    if name != "openai":  # an engine's unfinished page takes room, which a sample leaves out
        for point, known in zip(found.curve, exact.curve, strict=True):
            assert point.hit_rate == pytest.approx(known.hit_rate)
    assert (exact.infinite.hit_rate or 0) > 0.05


def test_shards_counted_apart_find_the_heavy_blocks_that_one_counter_finds() -> None:
    random = np.random.default_rng(4)
    ids = random.zipf(1.3, 50_000).astype(np.int64)
    positions = random.integers(0, 2**64, len(ids), np.uint64)
    whole = TouchCounter(7, max_counted=3000)
    whole.add(ids, positions)
    merged = TouchCounter(7, max_counted=3000)
    for part in np.array_split(np.arange(len(ids)), [100, 20_000, 45_000]):
        shard = TouchCounter(7, max_counted=3000)
        shard.add(ids[part], positions[part])
        merged.merge(shard)
    assert merged.heavy(0.01).tolist() == whole.heavy(0.01).tolist()
    assert len(merged.heavy(0.01)) > 3
    assert merged.num_touches == len(ids)


def test_text_needs_a_tokenizer_and_bad_rows_are_told_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hello"}]}\n')
    with pytest.raises(InputError, match="need the served model's tokenizer"):
        analyze_sampled(Reading([path]), "openai", 0.5)
    path.write_text('{"prompt": [1, 2]}\n{"prompt": [-1]}\n{"prompt": [1, 2], "timestamp": 3}\n')
    with pytest.raises(FormatError, match=r"log.jsonl:2: "):
        analyze_sampled(Reading([path]), "openai", 0.5)
    found = analyze_sampled(Reading([path], skip_bad=True), "openai", 0.5)
    assert found.requests == 1
    assert "2 bad rows were skipped" in found.warnings


def test_heavy_blocks_that_are_always_together_are_one_kept_touch(tmp_path: Path) -> None:
    # A system prompt of 30 blocks in all 40 requests, of which half go on with a tool block of 10.
    rows = []
    for row in range(40):
        ids = [*range(30), *(range(100, 110) if row % 2 else ()), 1000 + row]
        rows.append({"timestamp": row, "input_length": 512 * len(ids), "hash_ids": ids})
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = keep(Reading([path]), "mooncake", 0.01, 5)
    heavy = kept.group < 0
    assert (kept.ids[heavy] == 0).sum() == 40
    assert set(kept.ids[heavy].tolist()) == {0, 100}
    assert set(kept.weight[kept.ids == 0].tolist()) == {30}
    assert set(kept.weight[kept.ids == 100].tolist()) == {10}
    found = analyze_sampled(Reading([path]), "mooncake", 0.01, lambda size: [39, 40])
    exact = analyze(read_trace([path]), [39, 40])
    assert found.infinite.hit_rate == pytest.approx(exact.infinite.hit_rate)


def test_ids_that_follow_several_parents_are_not_merged_and_shards_agree() -> None:
    heavy = np.array([1, 2, 3, 4])
    chains = [[1, 2, 3], [1, 2, 3], [2, 1, 4], [9, 4]]
    whole = HeavyBlocks(heavy)
    parts = [HeavyBlocks(heavy) for _ in chains]
    for part, chain in zip(parts, chains, strict=True):
        part.add(np.array([len(chain)]), np.array(chain))
    whole.add(np.array([len(chain) for chain in chains]), np.concatenate(chains))
    merged = HeavyBlocks(heavy)
    merged.merge(parts)
    # 3 follows 2 alone but has fewer touches; 1, 2 and 4 follow several.
    assert whole.weights().tolist() == merged.weights().tolist() == [1, 1, 1, 1]
    plain = HeavyBlocks(heavy)
    plain.add(np.array([4, 0, 4]), np.array([1, 2, 3, 4, 1, 2, 3, 4]))
    assert plain.weights().tolist() == [4, 0, 0, 0]
