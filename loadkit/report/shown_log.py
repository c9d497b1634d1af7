"""Of `append_only` and `diversity` in run.json what a report shows, with bounds. Other keys may be
there, or not: they are not shown."""

from __future__ import annotations

from typing import Annotated

import msgspec

from loadkit.gate.inputs import Count, Rate

# A mean of counts, or seconds: beyond what a float counts exactly it is damage.
Amount = Annotated[float, msgspec.Meta(ge=0, le=2**53)]


class _Example(msgspec.Struct):
    before: str | None
    after: str | None


class _BrokenBy(msgspec.Struct):
    title: str
    remedy: str
    pairs: Count
    tokens_lost: Count
    lost_rate: Rate | None
    example: _Example


class AppendOnly(msgspec.Struct):
    turn_pairs: Count
    kept: Count
    causes: list[_BrokenBy]

    def __post_init__(self) -> None:
        if self.kept > self.turn_pairs:
            raise ValueError(f"{self.kept} of {self.turn_pairs} turn_pairs kept")


class _SharedPrefix(msgspec.Struct):
    start_token: Count
    tokens: Count
    sessions: Count
    requests: Count
    hit_share: Rate
    words: str | None


class _WorkingSet(msgspec.Struct):
    seconds: Amount
    mean_tokens: Amount


class _NearReplay(msgspec.Struct):
    near_replays: Count


class Diversity(msgspec.Struct):
    distinct_prompts: Count
    distinct_share: Rate | None
    effective_prompts: Amount | None
    prompt_coverage: Rate | None
    prefix_coverage: Rate | None
    shared_prefixes: Count
    working_set: list[_WorkingSet] | None
    near_replay: _NearReplay
    leaderboard: list[_SharedPrefix]
