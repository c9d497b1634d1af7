"""What the engine shows of itself: diversity, KV events, and its requests as a log."""

from __future__ import annotations

import json
import random
from pathlib import Path

from engine_builders import make_engine, make_lower, run

from loadkit.analysis import per_request
from loadkit.traces import read_trace
from reference_server.diversity_index import DiversityIndex
from reference_server.kv_events import KVEvents


def test_the_diversity_index_is_the_share_of_new_prompts_in_the_window() -> None:
    index = DiversityIndex(window=4)
    assert index.value is None
    shares = []
    for is_replay in (False, True, True, False, True, True, True, True):
        index.add(is_replay=is_replay)
        shares.append(index.value)
    assert shares == [1, 1 / 2, 1 / 3, 2 / 4, 1 / 4, 1 / 4, 1 / 4, 0]


def test_the_engine_measures_it_live() -> None:
    engine = make_engine(50)
    for prompt in ([1, 2], [1, 2], [1, 2, 2], [1, 2]):
        run(engine, prompt)
    assert engine.diversity.value == 0.5
    engine._reset()
    assert engine.diversity.value is None


def test_a_block_is_told_as_stored_and_as_removed() -> None:
    engine = make_engine(2)
    first = run(engine, [1] * 5)
    run(engine, [2] * 5)
    events, lost = engine.tree.events.since()
    told = [(e.kind, e.block, e.parent) for e in events]
    assert lost == 0
    assert told[0] == ("stored", first.hashes[0], first.root)
    assert ("removed", first.hashes[0], first.root) in told
    engine._reset()
    assert engine.tree.events.since()[0][-1].kind == "cleared"


def test_events_make_up_what_is_in_the_tree_whatever_the_tier() -> None:
    rng = random.Random(2)
    engine = make_engine(8, lower=make_lower(4, 3))
    for _ in range(150):
        run(engine, [rng.randrange(3) for _ in range(rng.randint(1, 20))], rng.randint(1, 6))
    held: dict[bytes, str] = {}
    for event in engine.tree.events.since()[0]:
        assert event.block is not None
        if event.kind == "stored":
            held[event.block] = event.tier
        else:
            del held[event.block]
    assert held.keys() == engine.tree.nodes.keys()
    names = ("device", "host", "disk")
    assert held == {block: names[node.tier] for block, node in engine.tree.nodes.items()}


def test_a_slow_reader_learns_how_much_it_missed() -> None:
    events = KVEvents(limit=3)
    for number in range(5):
        events.add("stored", bytes([number]))
    told, lost = events.since(1)
    assert ([e.number for e in told], lost) == ([3, 4, 5], 1)
    assert events.since(5) == ([], 0)


def test_the_log_of_the_served_requests_predicts_their_splits(tmp_path: Path) -> None:
    """300 requests over two token values at a small capacity, through the file format."""
    rng = random.Random(5)
    engine = make_engine(14, vocabulary=2)
    engine.log.start()
    served = []
    prompt = [0]
    for _ in range(300):
        if rng.random() < 0.6:
            prompt = [*prompt, rng.randrange(2)][-30:] if rng.random() < 0.5 else list(prompt)
        else:
            prompt = [rng.randrange(2) for _ in range(rng.randint(1, 30))]
        session = rng.choice(["a", "b", None])
        served.append(run(engine, prompt, rng.randint(1, 8), session=session))
    path = tmp_path / "served.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in engine.log.take()))
    predicted = per_request(read_trace([path]), 14)
    assert [r.split for r in served] == [predicted.split(row) for row in range(len(served))]
    assert predicted.total().miss_capacity > 300


def test_no_row_is_kept_unless_asked_for() -> None:
    engine = make_engine(14)
    run(engine, [1, 2])
    assert engine.log.take() == []
