"""Diversity of a log: how many different prompts and prefixes it really has, and who carries them."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.analysis.diversity.frequencies import HillNumbers, Zipf, coverage, hill_numbers, zipf
from loadkit.analysis.diversity.leaderboard import SharedPrefix, leaderboard
from loadkit.analysis.diversity.near_replay import NearReplay, near_replay
from loadkit.analysis.diversity.prefixes import segments_of
from loadkit.analysis.diversity.times import ReuseWithin, WorkingSet, over_time
from loadkit.analysis.reuse import Reuse


class Diversity(msgspec.Struct, frozen=True):
    """Of whole prompts (partial last block included) and of their block-aligned prefixes.

    distinct_share is distinct prompts / requests. effective_prompts is the Hill number of order 1.
    distinct_prefixes counts distinct blocks, since a block's id tells the whole prefix;
    shared_prefixes the parts between branching points that more than one session has.
    prompt_coverage and prefix_coverage (Good-Turing): the chance that the next prompt, or block, is
    a known one. zipf: popularity of shared prefixes in sessions; None if there are too few.
    reuse_times and working_set are None for a log without arrival times.
    """

    distinct_prompts: int
    distinct_share: float | None
    effective_prompts: float | None
    hill_numbers: HillNumbers
    prompt_coverage: float | None
    distinct_prefixes: int
    prefix_coverage: float | None
    shared_prefixes: int
    zipf: Zipf | None
    reuse_times: tuple[ReuseWithin, ...] | None
    working_set: tuple[WorkingSet, ...] | None
    near_replay: NearReplay
    leaderboard: tuple[SharedPrefix, ...]


def diversity(reuse: Reuse, show_text: bool = False) -> Diversity:
    """Diversity from a log's pass; rates are None for a log without requests or blocks."""
    trace, segments = reuse.trace, segments_of(reuse)
    prompts = np.bincount(trace.prompt_key, minlength=1)
    prompts = prompts[prompts > 0]
    blocks = np.bincount(trace.block_ids, minlength=1)
    hill = hill_numbers(prompts)
    reuse_times, working_set = over_time(trace)
    return Diversity(
        distinct_prompts=hill.order_0,
        distinct_share=hill.order_0 / trace.num_requests if trace.num_requests else None,
        effective_prompts=hill.order_1,
        hill_numbers=hill,
        prompt_coverage=coverage(prompts),
        distinct_prefixes=int(np.sum(blocks > 0)),
        prefix_coverage=coverage(blocks),
        shared_prefixes=len(segments.shared),
        zipf=zipf(segments.sessions[segments.shared]),
        reuse_times=reuse_times,
        working_set=working_set,
        near_replay=near_replay(reuse),
        leaderboard=leaderboard(trace, segments, show_text),
    )
