"""A sample taken by a cluster of two nodes that loses a worker and then a node is the one machine's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from tiny_model import make_tokenizer

from loadkit.analysis.distributed import Question, analyze_on_ray
from loadkit.analysis.distributed.cluster import Done
from loadkit.analysis.sampling import analyze_sampled
from loadkit.analysis.sampling.estimate import NUM_GROUPS
from loadkit.analysis.sampling.kept import KeptTouches, keep
from loadkit.core.tokenizer import load_tokenizer
from loadkit.traces.reading import Reading

# Otherwise the driver looks for the cluster on the machine's outer address. Read on import.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]
SHARDS = 5
WORDS = [
    "cache",
    "block",
    "prompt",
    "token",
    "server",
    "answer",
    "question",
    "shared",
    "system",
    "user",
    "hello",
    "world",
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, on the loopback interface, without dashboard and usage reports."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        made.second = made.add_node(**node)
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def write_shards(folder: Path) -> list[Path]:
    """Conversations dealt over the shards, JSONL and Parquet, so that sessions cross files.

    A shard has more than 100 KiB of ids: fewer would travel with the answer and not be lost.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw, rows = Random(5), []
    system = " ".join(draw.choices(WORDS, k=150))
    for session in range(250):
        prompt = system if session % 3 else "alone"
        for turn in range(4):
            prompt += " " + " ".join(draw.choices(WORDS, k=draw.randint(60, 260)))
            rows.append(
                {"timestamp": 9.0 * turn + session, "session_id": session, "prompt": prompt}
            )
    paths = []
    for number in range(SHARDS):
        part = rows[number::SHARDS]
        if number % 2:
            paths.append(folder / f"{number}.parquet")
            pq.write_table(pa.Table.from_pylist(part), paths[-1])
        else:
            paths.append(folder / f"{number}.jsonl")
            paths[-1].write_text("".join(json.dumps(row) + "\n" for row in part))
    return paths


def assert_equal(found: KeptTouches, known: KeptTouches) -> None:
    for name in KeptTouches.__dataclass_fields__:
        one, other = getattr(found, name), getattr(known, name)
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, name


def test_a_cluster_that_loses_a_worker_and_a_node_finds_what_one_machine_finds(
    cluster: Any, tmp_path: Path
) -> None:
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    paths = write_shards(tmp_path)
    lost: list[Done] = []

    def kill(done: Done) -> None:
        """The first worker of the second node that is done: it dies, and so does its node."""
        if not lost and done.node == cluster.second.node_id:
            lost.append(done)
            os.kill(done.pid, signal.SIGKILL)
            cluster.remove_node(cluster.second, allow_graceful=False)

    asked = Question(0.1, tokenizer=str(tmp_path / "tokenizer"))
    sizes = lambda block_size: [100, 1000]  # noqa: E731
    found = analyze_on_ray(paths, asked, sizes, on_done=kill)
    assert lost
    assert found.format == "openai"

    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    alone = keep(Reading(paths), "openai", 0.1, NUM_GROUPS, tokenizer=tokenizer)
    assert_equal(found.kept, alone)
    assert 8 * int(alone.num_blocks.sum()) > SHARDS * 100 * 1024
    known = analyze_sampled(Reading(paths), "openai", 0.1, sizes, tokenizer=tokenizer)
    assert found.analysis.to_dict() == known.to_dict()
    assert 0.03 < (known.infinite.shared or 0) < 0.9
