"""Shards on a Ray cluster: hashed and counted, then sampled; the pass runs here on what was kept.

Which blocks are kept depends on the log and the seed alone, so the result is what one machine finds
on the same log. A worker or a node that dies costs its shards' work, which Ray does again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadkit.analysis.distributed.shards import (
    Failure,
    Ids,
    Shard,
    Summary,
    as_url,
    choose_in_shard,
    count_in_shard,
    hash_shard,
)
from loadkit.analysis.sampling.choose import Chosen, TouchCounter
from loadkit.analysis.sampling.estimate import (
    NUM_GROUPS,
    Capacities,
    SampledAnalysis,
    check_rate,
    estimate,
)
from loadkit.analysis.sampling.hashed_rows import Kept, RowColumns
from loadkit.analysis.sampling.heavy import HeavyBlocks
from loadkit.analysis.sampling.kept import KeptTouches, in_order
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.traces.reading import Reading

Told = TypeVar("Told")
Answer = TypeVar("Answer")
_OPTION = "--engine-distributed"
_RETRIES = 5  # of a shard whose worker died


class Done(msgspec.Struct, frozen=True):
    """A shard is hashed: which, and by which process of which node."""

    number: int
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class Question:
    """How to read the shards and what to keep; see `analyze_sampled`. tokenizer: a folder or name
    that every node has."""

    rate: float
    format: str = "auto"
    tokenizer: str | None = None
    block_size: int | None = None
    skip_bad: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distributed:
    """The estimate, what it was made from, and the log's format."""

    analysis: SampledAnalysis
    format: str
    kept: KeptTouches = field(repr=False)


def analyze_on_ray(
    paths: Sequence[Path],
    asked: Question,
    capacities: Capacities = lambda block_size: (),
    *,
    on_done: Callable[[Done], None] | None = None,
) -> Distributed:
    """Sample a log whose files are shards: paths that every node sees, or URLs that fsspec opens.

    Runs on the cluster that this process is connected to, else on the one that RAY_ADDRESS names,
    else on this machine's cores. InputError for bad shards, CannotMeasure if the cluster fails.
    """
    check_rate(asked.rate)
    shards = [
        Shard(
            as_url(path),
            number,
            asked.format,
            asked.tokenizer,
            asked.block_size,
            asked.skip_bad,
            asked.seed,
        )
        for number, path in enumerate(paths)
    ]
    with _connected() as ray:
        summaries, ids = _hash_all(ray, shards, on_done)
        name = _one_format(shards, summaries)
        columns, counter, warnings = _together(shards, summaries)
        if not len(columns):
            raise Reading(paths).empty()
        heavy = HeavyBlocks(counter.heavy(asked.rate))
        heavy.merge(_on_all(ray, count_in_shard, ids, heavy.heavy))
        chosen = Chosen(asked.rate, heavy.heavy, NUM_GROUPS, asked.seed, heavy.weights())
        touches = Kept.joined(_on_all(ray, choose_in_shard, ids, chosen))
    kept = in_order(columns, touches, warnings)
    return Distributed(estimate(kept, asked.rate, capacities), name, kept)


def _hash_all(
    ray: Any, shards: Sequence[Shard], on_done: Callable[[Done], None] | None
) -> tuple[list[Summary], list[Any]]:
    """Summaries of all shards, and references to their ids, which stay on the cluster."""
    task = ray.remote(_hash).options(
        num_returns=3, scheduling_strategy="SPREAD", max_retries=_RETRIES
    )
    results = [task.remote(shard) for shard in shards]
    summaries: list[Summary | None] = [None] * len(shards)
    number_of = {result[2]: number for number, result in enumerate(results)}
    waiting = list(number_of)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        number = number_of[ready[0]]
        done, summary = ray.get(ready[0]), ray.get(results[number][0])
        if isinstance(summary, Failure):
            raise summary.error()
        summaries[number] = summary
        if on_done is not None:
            on_done(done)
    return [summary for summary in summaries if summary is not None], [r[1] for r in results]


def _hash(shard: Shard) -> tuple[Summary | Failure, Ids, Done]:
    """On a worker."""
    import ray

    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # a task has one core
    summary, ids = hash_shard(shard)
    return summary, ids, Done(shard.number, ray.get_runtime_context().get_node_id(), os.getpid())


def _on_all(
    ray: Any, work: Callable[[Ids, Told], Answer], ids: Sequence[Any], told: Told
) -> list[Answer]:
    """What some work finds in each shard's ids, in the shards' order."""
    task = ray.remote(work).options(max_retries=_RETRIES)
    shared = ray.put(told)
    answers: list[Answer] = ray.get([task.remote(one, shared) for one in ids])
    return answers


def _one_format(shards: Sequence[Shard], summaries: Sequence[Summary]) -> str:
    """The shards' common format. InputError if they, or their tokenizers, differ."""
    some = [pair for pair in zip(shards, summaries, strict=True) if pair[1].format is not None]
    first = some[0][1] if some else None
    for shard, summary in some:
        if first is not None and summary.format != first.format:
            raise InputError(
                f"the shard looks like `{summary.format}`, earlier ones like `{first.format}`",
                where=shard.path,
                remedy="one format a log",
            )
        if first is not None and summary.fingerprint != first.fingerprint:
            raise InputError(
                "the nodes have different tokenizers under this name",
                where="--tokenizer",
                remedy="give every node the same folder",
            )
    return (first.format if first is not None else None) or "auto"


def _together(
    shards: Sequence[Shard], summaries: Sequence[Summary]
) -> tuple[RowColumns, TouchCounter, list[str]]:
    """Rows, counts and warnings of all shards."""
    first = next((s for s in summaries if s.format is not None), summaries[0])
    columns = RowColumns(first.columns.default_block_size, shards[0].block_size)
    columns.one_clock = first.columns.one_clock
    counter = TouchCounter(shards[0].seed)
    for summary in summaries:
        columns.extend(summary.columns)
        counter.merge(summary.counter)
    warnings = dict.fromkeys(text for summary in summaries for text in summary.warnings)
    return columns, counter, list(warnings)


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray, connected; what was started here is stopped here. No dashboard, no usage reports."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "the package `ray` is not installed",
            where=_OPTION,
            remedy="pip install 'loadkit-llm[ray]'",
        ) from error
    ours = not ray.is_initialized()
    try:
        if ours:
            _start(ray)
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise CannotMeasure(
            f"the Ray cluster failed: {(str(error).splitlines() or [repr(error)])[0]}"
        ) from error
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address := os.environ.get("RAY_ADDRESS"):
        ray.init(address=address, **quiet)
    else:
        ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
