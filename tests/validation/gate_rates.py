"""How often the gate is wrong: `python tests/validation/gate_rates.py [--draws N]` prints the tables.

A log and a staging run are two draws of sessions of one synthetic world (tests/support/worlds.py),
so staging is honest; or a share of staging's requests is sent again in sessions of its own, so that replays add
10, 20 or 40 points of hits. Nothing is sent: cached tokens are what an LRU of the run's capacity gives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "gate"))

from fresh_worlds import make_fresh_world
from gate_builders import folder, run
from trials import take_requests
from worlds import WORLDS, make_world

from loadkit.analysis import per_request
from loadkit.analysis.per_request import PerRequest
from loadkit.core.split import Split
from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.gate import Verdict, decide_folder

KINDS = ("flat", "agents", "library", "evaluations", "helpdesk", "grading")
SIZES = (40, 150, 400)
REPLAYS = (0.10, 0.20, 0.40)
CAPACITY_SHARE = 0.25  # of the log's distinct blocks, so that something is evicted
REPLAY_KINDS = (None, "same_session", "cross_session")


@lru_cache(256)
def _whole(world: str, seed: int) -> Trace:
    return (make_world if world in WORLDS else make_fresh_world)(world, seed, 0.4)


def two_draws(
    world: str, seed: int, sessions: int, log_sessions: int
) -> tuple[Trace | None, Trace]:
    """A log (None: of no sessions) and a run of one day of a world: sessions drawn at random, none of them in both."""
    whole = _whole(world, seed)
    order = np.random.default_rng([seed, 23]).permutation(whole.num_sessions)
    if sessions + log_sessions > len(order):
        raise ValueError(f"{world} has only {len(order)} sessions")
    log, staging = order[:log_sessions], order[log_sessions:][:sessions]
    return (
        take_requests(whole, np.isin(whole.session, log)) if log_sessions else None,
        take_requests(whole, np.isin(whole.session, staging)),
    )


def with_replays(trace: Trace, points: float, seed: int) -> Trace:
    """Requests sent again half a second later, each by a session of its own, until what they hit is
    that share of all prompt tokens (so soon, whole prompts hit but for a last block)."""
    random = np.random.default_rng([seed, 29])
    order = random.permutation(np.arange(trace.num_requests).repeat(8))
    wanted = points / (1 - points) * trace.prompt_tokens.sum()
    again = order[: int(np.searchsorted(np.cumsum(trace.prompt_tokens[order]), wanted)) + 1]
    assert trace.arrival_s is not None
    at_s = np.concatenate(
        [trace.arrival_s, trace.arrival_s[again] + 0.5 * random.random(len(again))]
    )
    who = np.concatenate([trace.session, trace.num_sessions + np.arange(len(again))])
    rows = np.concatenate([np.arange(trace.num_requests), again])
    by_time = np.argsort(at_s, kind="stable")
    rows = rows[by_time]
    chains = [trace.block_ids[trace.block_ptr[r] : trace.block_ptr[r + 1]] for r in rows]
    return replace(
        trace,
        prompt_tokens=trace.prompt_tokens[rows],
        block_ptr=np.concatenate([[0], np.cumsum([len(chain) for chain in chains])]),
        block_ids=np.concatenate(chains),
        prompt_key=trace.prompt_key[rows],
        session=who[by_time],
        num_sessions=trace.num_sessions + len(again),
        output_tokens=trace.output_tokens[rows],
        arrival_s=at_s[by_time],
        tenant=None,
    )


def run_folder(
    at: Path,
    trace: Trace,
    capacity_blocks: int,
    *,
    seed: int = 0,
    lost: float = 0.0,
    slower: float = 1.0,
    **changes: Any,
) -> Path:
    """What `loadkit run` would leave of this traffic on an ideal server; `lost`: share of requests
    that the cache fails, drawn by `seed` as is the noise of the times."""
    random = np.random.default_rng([seed, 31])
    requests = per_request(trace, capacity_blocks)
    failed = random.random(trace.num_requests) < lost
    splits = [
        Split(int(requests.prompt_tokens[row])) if failed[row] else requests.split(row)
        for row in range(trace.num_requests)
    ]
    data = _run_json(trace, requests, sum(splits, Split(0)), capacity_blocks)
    rows = [_row(trace, requests, row, split) for row, split in enumerate(splits)]
    for row, noise in zip(rows, random.lognormal(0, 0.3, len(rows)), strict=True):
        uncached = row["prompt_tokens"] - row["cached_tokens"]
        row["ttft_s"] = slower * noise * (0.05 + 1e-4 * uncached)
        row["e2e_s"] = row["ttft_s"] + 1.0
    return folder(at, data | changes, rows)


def _run_json(trace: Trace, requests: PerRequest, total: Split, blocks: int) -> dict[str, Any]:
    tokens = {"cached_tokens": total.hit, "prompt_tokens": total.prompt_tokens}
    names = ("replay_same_session", "replay_cross_session", "continuation", "shared")
    data = run(
        tokenizer=None,
        block_size=trace.block_size,
        capacity_blocks=blocks,
        requests={"scheduled": trace.num_requests, "ok": trace.num_requests},
    )
    data["split"] |= {
        "requests": trace.num_requests,
        "sessions": trace.num_sessions,
        "prompt_tokens": total.prompt_tokens,
        "hit_rate": total.rate("hit"),
        **{f"{name}_rate": total.rate(name) for name in names},
    }
    data["reconciliation"] |= {
        **dict.fromkeys(
            ("usage", "usage_all_phases", "prediction", "prediction_all_phases"), tokens
        ),
        "prediction_infinite_tokens": int(requests.reusable_tokens.sum()),
        "prediction_capacity_blocks": blocks,
    }
    data["reconciliation"]["impossible"]["judged"] = trace.num_requests
    return data


def _row(trace: Trace, requests: PerRequest, row: int, split: Split) -> dict[str, Any]:
    names = ("replay_same_session", "replay_cross_session", "continuation", "shared")
    return {
        "session": f"s{trace.session[row]}",
        "outcome": "ok",
        "prompt_tokens": split.prompt_tokens,
        "cached_tokens": split.hit,
        "replay": REPLAY_KINDS[requests.replay[row]],
        **{name: getattr(split, name) for name in names},
    }


def judged(
    world: str, seed: int, sessions: int, log_sessions: int, replay: float, *, cold: bool = False
) -> Verdict:
    """One draw: the forecast of a log (cold: of as short a cold start as the run's), and the verdict
    on a staging run of its world."""
    log, staging = two_draws(world, seed, sessions, log_sessions)
    assert log is not None
    if replay:
        staging = with_replays(staging, replay, seed)
    capacity = int(CAPACITY_SHARE * log.num_unique_blocks)
    with tempfile.TemporaryDirectory() as scratch:
        at = run_folder(Path(scratch) / "run", staging, capacity)
        assert log.arrival_s is not None
        horizon_s = float(np.ptp(log.arrival_s)) * sessions / log_sessions if cold else None
        return decide_folder(at, forecast(log, 1.0, capacity, horizon_s=horizon_s).to_dict())


def regressed(world: str, seed: int, sessions: int, points: float, slower: float = 1.0) -> str:
    """Outcome of the check against a baseline of the same sessions on a server that has lost so
    many points of hit rate since, or none."""
    _, trace = two_draws(world, seed, sessions, 0)
    capacity = int(CAPACITY_SHARE * trace.num_unique_blocks)
    rate = float(per_request(trace, capacity).resident_tokens.sum() / trace.prompt_tokens.sum())
    with tempfile.TemporaryDirectory() as scratch:
        old = run_folder(Path(scratch) / "old", trace, capacity, seed=2 * seed, started_unix_s=1.0)
        new = run_folder(
            Path(scratch) / "new", trace, capacity, seed=2 * seed + 1, lost=points / rate,
            slower=slower,
        )  # fmt: skip
        verdict = decide_folder(new, forecast(trace, 1.0, capacity).to_dict(), baseline=old)
    return next(check.outcome for check in verdict.checks if check.code == "regression")


def print_regressions(draws: int, sizes: tuple[int, ...], kinds: tuple[str, ...]) -> None:
    """How often a baseline check fails: of the same server, and of one that got worse."""
    print("\n| world | sessions | same server | 5 points lost | 10 points lost | 20% slower |")
    print("|---|---:|---:|---:|---:|---:|")
    for world in kinds:
        for sessions in sizes:
            cells = []
            for points, slower in ((0.0, 1.0), (0.05, 1.0), (0.10, 1.0), (0.0, 1.2)):
                found = [
                    regressed(world, seed, sessions, points, slower) == "failed"
                    for seed in range(draws)
                ]
                cells.append(f"{100 * np.mean(found):.0f}%")
            print(f"| {world} | {sessions} | {' | '.join(cells)} |", flush=True)


def print_verdicts(draws: int, sizes: tuple[int, ...], kinds: tuple[str, ...]) -> None:
    """Verdicts on honest runs, and how often one with replays passes (a quarter of the draws)."""
    points = " | ".join(f"+{100 * replay:.0f}: PASS" for replay in REPLAYS)
    print(f"| world | sessions | of the log | PASS | INCONCLUSIVE | FAIL | {points} |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for world in kinds:
        for sessions in sizes:
            for log, cold in _logs(sessions, max(sizes)):
                verdicts = [
                    [
                        judged(world, seed, sessions, log, replay, cold=cold).verdict
                        for seed in range(draws if not replay else max(1, draws // 4))
                    ]
                    for replay in (0.0, *REPLAYS)
                ]
                cells = [
                    *(_percent(verdicts[0], name) for name in ("PASS", "INCONCLUSIVE", "FAIL")),
                    *(_percent(found, "PASS") for found in verdicts[1:]),
                ]
                of = f"{log}, cold start" if cold else f"{log}"
                print(f"| {world} | {sessions} | {of} | {' | '.join(cells)} |", flush=True)


def _logs(sessions: int, most: int) -> list[tuple[int, bool]]:
    """Logs to forecast from: as long as the run; longer, and longer with --horizon."""
    longer = [(most, False), (most, True)] if sessions < most else []
    return [(sessions, False), *longer]


def _percent(found: list[str], name: str) -> str:
    return f"{100 * found.count(name) / len(found):.0f}%"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--worlds", default=",".join(KINDS))
    options = parser.parse_args()
    kinds = tuple(options.worlds.split(","))
    print_verdicts(options.draws, SIZES, kinds)
    print_regressions(max(1, options.draws // 4), SIZES[:2], kinds)


if __name__ == "__main__":
    main()
