"""What the launcher knows about a run besides its records; input of the run folder."""

from __future__ import annotations

from typing import Any

import msgspec

from loadkit.client.prometheus import CounterSample, PrefixCounters
from loadkit.client.stalls import StallReport

__all__ = ["CounterSample", "PrefixCounters", "RunContext", "Stage", "StallReport", "Start"]


class Stage(msgspec.Struct, frozen=True):
    """One step of a staircase of rates, in seconds after the run's start; end_s is not in it."""

    start_s: float
    end_s: float
    rate_per_s: float


class Start(msgspec.Struct, frozen=True):
    """The moment that a run's times count from: monotonic for intervals, unix for the reader."""

    monotonic_s: float
    unix_s: float


class RunContext(msgspec.Struct, kw_only=True):
    """Everything `finish_run` needs that is not in a record. None: not known.

    scheduled: measured requests in the plan that the run set out to send (a run ended early has
    fewer records; the difference is counted as not_sent); scheduled_phases: those of the other
    phases, by phase. block_size and capacity_blocks describe the
    server's cache, num_slots one of llama.cpp; without a tokenizer and block size there is no
    prediction. engines: how many answer at the server's address, each with a cache of
    capacity_blocks (their mean). prefix_caching False: the server says that it reuses nothing.
    kept_blocks: where the server keeps states and windows (`core.trace.Trace`); empty: everywhere. mutations: requests that the append-only guard refused. compactions: histories replaced on purpose. cache: what was
    done about the server's cache before the run ("as_is", "reset" or "salt"). missing_workers: load workers that died or never reported.
    interrupted: ended by Ctrl-C before its plan was done. stages: of a saturation search, by rate.
    unasked: connections on which more came than was asked for. stalls: what each worker that reported says about its own loop. freshness: what the plan's
    prompts share, as `planning.FreshnessReport` has it. counter_samples: the server's counters in
    mid-run, in order of time.
    """

    profile: dict[str, Any]
    url: str
    model: str
    seed: int
    started_unix_s: float
    duration_s: float
    processes: int
    loop: str
    kind: str
    scheduled: int
    scheduled_phases: dict[str, int] = {}
    wraps: int = 0
    truncations: int = 0
    freshness: dict[str, Any] | None = None
    mutations: int = 0
    compactions: int = 0
    unasked: int = 0
    cache: str = "as_is"
    missing_workers: int = 0
    interrupted: bool = False
    stages: list[Stage] = []
    stalls: list[StallReport] = []
    tokenizer: str | None = None
    block_size: int | None = None
    capacity_blocks: int | None = None
    num_slots: int | None = None
    engines: int | None = None
    prefix_caching: bool | None = None
    kept_blocks: tuple[int, ...] = ()
    server_tokenizer_fingerprint: str | None = None
    counters_before: PrefixCounters | None = None
    counters_after: PrefixCounters | None = None
    counter_samples: list[CounterSample] = []
    versions: dict[str, str] = {}
    notes: list[str] = []
