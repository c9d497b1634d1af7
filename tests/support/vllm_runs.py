"""Recorded traffic of real vLLM: what a replay of its block pool needs of a run, and how it is judged.

A recording has no text: blocks are numbers, equal where their prefixes are. `record` makes one of a run
folder, `replayed` predicts it again, `print_table` shows predictions beside what vLLM reported.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq

from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import Reuse, reuse_of
from loadkit.analysis.simulate.vllm_pool import VllmPool
from loadkit.core.csr import pointers
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.runs.record import Record
from loadkit.runs.serving import pool_hits
from loadkit.traces import read_log


class Served(msgspec.Struct, array_like=True):
    """One request: blocks of prompt and reply as far as they are full, tokens, times as in Record."""

    blocks: list[int]
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    sent_s: float
    first_token_s: float
    completed_s: float
    gaps_s: list[float]
    event_tokens: list[int]


class Recording(msgspec.Struct):
    """A run's answered requests in order of sending."""

    name: str
    users: int
    block_size: int
    capacity_blocks: int
    requests: list[Served]


@dataclass(frozen=True, slots=True)
class Judged:
    """A run's prediction beside vLLM's own report. Tokens, but for `off`: requests whose cached tokens
    are not those of the likeliest order; arrival: what placing blocks on arrival predicts."""

    name: str
    users: int
    requests: int
    off: int
    prompt: int
    reported: int
    predicted: int
    low: int
    high: int
    arrival: int

    @property
    def error(self) -> float:
        """Predicted minus reported, of the prompt's tokens."""
        return (self.predicted - self.reported) / self.prompt

    @property
    def inside(self) -> bool:
        return self.low <= self.reported <= self.high


def record(folder: Path, tokenizer: Tokenizer | None) -> Recording:
    """The recording of a run folder."""
    run = msgspec.json.decode((folder / "run.json").read_bytes())
    size = run["block_size"]
    log = read_log(
        [folder / "sent.jsonl.gz"], format="openai", tokenizer=tokenizer, block_size=size
    )
    trace = log.trace
    assert trace.resident_ptr is not None
    assert trace.resident_ids is not None
    rows = pq.read_table(folder / "requests.parquet").to_pylist()
    answered = sorted((r for r in rows if r["outcome"] == "ok"), key=lambda r: r["sent_s"])
    requests = []
    for number, row in enumerate(answered):
        start, end = trace.resident_ptr[number : number + 2]
        requests.append(
            Served(
                trace.resident_ids[start:end].tolist(),
                int(trace.prompt_tokens[number]),
                row["output_tokens"],
                row["cached_tokens"],
                *(round(row[name], 6) for name in ("sent_s", "first_token_s", "completed_s")),
                [round(gap, 6) for gap in row["gaps_s"]],
                row.get("event_tokens") or [],
            )
        )
    users = run["profile"]["arrivals"]["users"]
    return Recording(folder.name, users, size, run["capacity_blocks"], requests)


def judged(recording: Recording) -> Judged:
    """Predict the recorded run again, as `loadkit run` does."""
    reuse, answered = _reuse(recording), [_record(one) for one in recording.requests]
    capacity = recording.capacity_blocks
    hits = pool_hits(lambda chains: VllmPool(chains, capacity), reuse, answered)
    assert hits is not None
    assert hits.drawn is not None
    reported = np.array([one.cached_tokens for one in recording.requests])
    totals = [int(hits.likeliest.sum()), *hits.drawn.sum(axis=1).tolist()]
    return Judged(
        name=recording.name,
        users=recording.users,
        requests=len(answered),
        off=int((hits.likeliest != reported).sum()),
        prompt=int(reuse.trace.prompt_tokens.sum()),
        reported=int(reported.sum()),
        predicted=totals[0],
        low=min(totals),
        high=max(totals),
        arrival=int(per_request_of(reuse, capacity).resident_tokens.sum()),
    )


def read_recordings(path: Path) -> list[Recording]:
    return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=list[Recording])


def write_recordings(recordings: Sequence[Recording], path: Path) -> None:
    path.write_bytes(gzip.compress(msgspec.json.encode(recordings), 9, mtime=0))


def table(rows: Sequence[Judged]) -> str:
    """Markdown: a line a run, then one for each number of users."""
    lines = [
        "| run | users | requests off | reported | predicted | interval | error, points | inside"
        " | placed on arrival, points |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r.users, r.name)):
        lines.append(
            f"| {row.name} | {row.users} | {row.off} of {row.requests} | {row.reported:,}"
            f" | {row.predicted:,} | {row.low:,} to {row.high:,} | {100 * row.error:+.2f}"
            f" | {'yes' if row.inside else 'NO'}"
            f" | {100 * (row.arrival - row.reported) / row.prompt:+.2f} |"
        )
    return "\n".join([*lines, "", *summary(rows)])


def summary(rows: Sequence[Judged]) -> list[str]:
    """A line for each number of users: the figures that the goal is stated in."""
    lines = [
        "| users | runs | requests off | largest error, points | within 0.5 | inside | placed on"
        " arrival: largest error, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for users in sorted({row.users for row in rows}):
        some = [row for row in rows if row.users == users]
        lines.append(
            f"| {users} | {len(some)} | {sum(row.off for row in some)} of"
            f" {sum(row.requests for row in some)} | {100 * max(abs(r.error) for r in some):.2f}"
            f" | {sum(abs(r.error) <= 0.005 for r in some)} | {sum(r.inside for r in some)}"
            f" | {100 * max(abs(r.arrival - r.reported) / r.prompt for r in some):.2f} |"
        )
    return lines


def _reuse(recording: Recording) -> Reuse:
    size, requests = recording.block_size, recording.requests
    prompt = np.array([one.prompt_tokens for one in requests])
    output = np.array([one.output_tokens for one in requests])
    kept = np.array([len(one.blocks) for one in requests])
    prompts = [one.blocks[: one.prompt_tokens // size] for one in requests]
    return reuse_of(
        Trace(
            block_size=size,
            prompt_tokens=prompt,
            block_ptr=pointers(np.array([len(chain) for chain in prompts])),
            block_ids=np.concatenate([np.array(chain, np.int64) for chain in prompts]),
            prompt_key=np.arange(len(requests)),
            session=np.arange(len(requests)),
            num_sessions=len(requests),
            sessions_inferred=False,
            output_tokens=output,
            arrival_s=np.array([one.sent_s for one in requests]),
            completed_s=np.array([one.completed_s for one in requests]),
            resident_ptr=pointers(kept),
            resident_ids=np.concatenate([np.array(one.blocks, np.int64) for one in requests]),
            partial_page=(prompt + output - 1) % size != 0,
        )
    )


def _record(one: Served) -> Record:
    return Record(
        session="",
        turn=0,
        name="",
        worker=0,
        outcome="ok",
        intended_s=one.sent_s,
        sent_s=one.sent_s,
        first_token_s=one.first_token_s,
        completed_s=one.completed_s,
        gaps_s=one.gaps_s,
        event_tokens=one.event_tokens,
        output_tokens=one.output_tokens,
    )
