"""Eviction policies on public traces: how much genuine reuse each keeps, with and without replay.

    python benchmarks/policies.py LOG... [--share 1.0] [--distinct 60] [--seed 1]

For each log and for caches of 3, 10 and 25% of its distinct blocks it prints, under each policy, the
genuine reuse (continuation + shared) in % of the prompt tokens of the log's own requests: of the
log alone, and of the log with a load test running beside it. The load test sends `distinct` prompts
of the log's first tenth again and again, `share` of them for each request of the log; what it
hits does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.policies import POLICIES, simulate
from loadkit.core.trace import IntArray, Trace
from loadkit.traces import read_trace
from loadkit.traces.interning import take_chains

SHARES = (0.03, 0.1, 0.25)


def with_replay(trace: Trace, share: float, distinct: int, seed: int) -> tuple[Trace, IntArray]:
    """The trace with a load test in it, and which rows (n,) are the log's own."""
    rng = np.random.default_rng(seed)
    num = trace.num_requests
    tenth = max(1, num // 10)
    chosen = rng.choice(tenth, min(distinct, tenth), replace=False)
    count = np.floor(share * np.arange(num + 1)).astype(np.int64)
    copies = np.diff(count)
    copies[:tenth] = 0
    place = np.repeat(np.arange(num), 1 + copies)
    own = np.ones(len(place), np.bool_)
    own[1:] = place[1:] != place[:-1]
    source = np.where(own, place, rng.choice(chosen, len(place)))
    ptr, ids = take_chains(trace.block_ptr, trace.block_ids, source)
    session = trace.session[source]
    session[~own] = trace.num_sessions + np.arange(int((~own).sum()))
    mixed = replace(
        trace,
        prompt_tokens=trace.prompt_tokens[source],
        block_ptr=ptr,
        block_ids=ids,
        prompt_key=trace.prompt_key[source],
        session=session,
        num_sessions=trace.num_sessions + int((~own).sum()),
        output_tokens=trace.output_tokens[source],
        arrival_s=None if trace.arrival_s is None else trace.arrival_s[place],
        chats=None,
    )
    return mixed, np.flatnonzero(own)


def genuine_rates(trace: Trace, own: IntArray, capacities: Sequence[int]) -> dict[str, list[float]]:
    """Genuine hit tokens / prompt tokens of the log's own requests, by policy and capacity."""
    reuse = reuse_of(trace)
    new = own[reuse.replay[own] == 0]
    total = int(trace.prompt_tokens[own].sum())
    rates: dict[str, list[float]] = {}
    for policy in POLICIES:
        results = [simulate(reuse, policy, capacity).requests for capacity in capacities]
        rates[policy] = [int(each.resident_tokens[new].sum()) / total for each in results]
    return rates


def compare(path: Path, share: float, distinct: int, seed: int) -> None:
    trace = read_trace([path])
    trace = replace(trace, resident_ptr=None, resident_ids=None, partial_page=None, chats=None)
    capacities = [max(1, round(part * trace.num_unique_blocks)) for part in SHARES]
    alone = genuine_rates(trace, np.arange(trace.num_requests), capacities)
    mixed = genuine_rates(*with_replay(trace, share, distinct, seed), capacities)
    print(f"\n{path.name}: caches of {', '.join(f'{size:,}' for size in capacities)} blocks")
    print(f"| policy | {' | '.join(f'{part:.0%}' for part in SHARES)} | with replay: "
          f"{' | '.join(f'{part:.0%}' for part in SHARES)} |")  # fmt: skip
    print("|---" * (1 + 2 * len(SHARES)) + "|")
    for policy in POLICIES:
        cells = [f"{100 * rate:.1f}" for rate in alone[policy] + mixed[policy]]
        print(f"| {policy} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--distinct", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for path in asked.logs:
        compare(path, asked.share, asked.distinct, asked.seed)


if __name__ == "__main__":
    main()
