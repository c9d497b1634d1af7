"""Kept touches -> rates with a standard error: the exact pass on weighted blocks.

Light blocks stand for all light blocks: their weight is (blocks of the log that may hit, less those
of heavy blocks) / (such touches kept). So no rate can pass what the engine's rule allows, and hits
and stack positions are right on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from loadkit.analysis.causes import replay_kinds
from loadkit.analysis.curve import CurvePoint, log_spaced
from loadkit.analysis.nodes import NodeRequests, NodeStream
from loadkit.analysis.sampling.kept import KeptTouches, keep
from loadkit.analysis.summary import SCHEMA, InfiniteCache
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.csr import pointers
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import BoolArray, IntArray
from loadkit.traces.reading import Reading

# Light blocks are dealt into so many samples, whose spread is the standard error of their mean.
NUM_GROUPS = 5
_SCALE = 4096  # weights are integers in the pass: 4096ths of a block
Capacities = Callable[[int], Sequence[int | None]]
_CAUSES = ("continuation", "shared", "replay_same_session", "replay_cross_session")


class SampledPoint(CurvePoint, frozen=True, kw_only=True):
    """A point of the curve; standard_error is that of hit_rate. block_hit_rate is never known."""

    standard_error: float | None


class Sampling(msgspec.Struct, frozen=True):
    """How the figures were sampled: light blocks with probability `rate`, heavy ones all.

    standard_error is that of the infinite cache's hit rate, by chance of the sample alone.
    """

    rate: float
    kept_touches: int
    heavy_touches: int
    block_touches: int
    standard_error: float | None


class SampledAnalysis(msgspec.Struct, frozen=True):
    """`Analysis` from a sample: counts are exact, rates are estimates, and what needs every block
    (unique blocks, append_only, diversity, block and per-request rates) is None."""

    requests: int
    sessions: int
    sessions_inferred: bool
    prompt_tokens: int
    block_size: int
    blocks: int
    infinite: InfiniteCache
    curve: tuple[SampledPoint, ...]
    sampled: Sampling
    warnings: tuple[str, ...]
    unique_blocks: None = None
    append_only: None = None
    diversity: None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object `loadkit.analysis/1` with `sampled`."""
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}


def analyze_sampled(
    reading: Reading,
    format: str,
    rate: float,
    capacities: Capacities = lambda block_size: (),
    block_size: int | None = None,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
) -> SampledAnalysis:
    """Estimate a log's split and curve, reading it once and keeping `rate` of its light blocks.

    capacities: sizes in blocks, told the block size; none: a curve up to the (estimated) footprint.
    The engine's rule is vLLM's. InputError unless 0 < rate <= 1, and for text without a tokenizer.
    """
    check_rate(rate)
    return estimate(
        keep(reading, format, rate, NUM_GROUPS, block_size, seed, tokenizer), rate, capacities
    )


def check_rate(rate: float) -> None:
    """InputError unless above 0 and at most 1."""
    if not 0 < rate <= 1:
        raise InputError(f"{rate:g} is not above 0 and at most 1", where="--sample", remedy="1%")


def estimate(kept: KeptTouches, rate: float, capacities: Capacities) -> SampledAnalysis:
    """The estimates from what was kept at `rate`; see `analyze_sampled`."""
    sizes = list(capacities(kept.block_size)) or _default_sizes(kept, rate)
    hits = _Counted(kept, rate, [None, *sizes])
    return SampledAnalysis(
        requests=len(kept.prompt_tokens),
        sessions=int(kept.session.max(initial=-1)) + 1,
        sessions_inferred=False,
        prompt_tokens=int(kept.prompt_tokens.sum()),
        block_size=kept.block_size,
        blocks=int(kept.num_blocks.sum()),
        infinite=hits.infinite(),
        curve=tuple(hits.point(index + 1, size) for index, size in enumerate(sizes)),
        sampled=Sampling(
            rate=rate,
            kept_touches=int(kept.weight.sum()),
            heavy_touches=int(kept.weight[kept.group < 0].sum()),
            block_touches=int(kept.num_blocks.sum()),
            standard_error=hits.standard_error(0),
        ),
        warnings=kept.warnings,
    )


class _Counted:
    """Hits of the whole sample, and of heavy blocks with each group of light ones."""

    def __init__(self, kept: KeptTouches, rate: float, sizes: Sequence[int | None]):
        self._rate, self._kept, self._facts = rate, kept, _Facts(kept)
        scaled = [None if size is None else size * _SCALE for size in sizes]
        everything = np.ones(len(kept.ids), np.bool_)
        self._hits = weighted_hits(self._facts.stream(everything), scaled)
        self._parts = [
            weighted_hits(self._facts.stream(part), scaled).hit_rates() / _SCALE
            for part in ((kept.group < 0) | (kept.group == group) for group in range(NUM_GROUPS))
        ]

    def infinite(self) -> InfiniteCache:
        organic, rates = self._hits.organic_rate(0), self._rates(0)
        hit = rates["hit_rate"]
        return InfiniteCache(
            **rates,
            miss=None if hit is None else max(0.0, 1 - hit),
            organic_hit_rate=None if organic is None else min(1.0, organic / _SCALE),
            block_hit_rate=None,
            per_request_mean_hit_rate=None,
        )

    def point(self, index: int, size: int | None) -> SampledPoint:
        rates, ever = self._rates(index), self._rates(0)["hit_rate"]
        hit = rates["hit_rate"]
        return SampledPoint(
            **rates,
            capacity_blocks=size,
            capacity_tokens=None if size is None else size * self._kept.block_size,
            miss_compulsory=None if ever is None else max(0.0, 1 - ever),
            miss_capacity=None if ever is None or hit is None else ever - hit,
            block_hit_rate=None,
            standard_error=self.standard_error(index),
        )

    def standard_error(self, index: int) -> float | None:
        """Of the index-th hit rate, 0 where every block is kept; None without tokens."""
        rates = np.array([part[index] for part in self._parts])
        if not np.isfinite(rates).all():
            return None
        return float(rates.std(ddof=1) * np.sqrt((1 - self._rate) / NUM_GROUPS))

    def _rates(self, index: int) -> dict[str, float | None]:
        """By cause and in all; None without tokens."""
        if not (tokens := self._hits.prompt_tokens):
            return dict.fromkeys((*_CAUSES, "hit_rate"))
        found = self._hits.hit_tokens[0, index] / _SCALE / tokens
        # The light blocks' weight is rounded, so where all is hit the sum may be above 1 by a hair.
        shares = (found / max(1.0, float(found.sum()))).tolist()
        return dict(zip(_CAUSES, shares, strict=True)) | {"hit_rate": sum(shares)}


class _Facts:
    """What is the same for every part of the sample."""

    def __init__(self, kept: KeptTouches):
        self.kept = kept
        rule = np.maximum(kept.prompt_tokens - 1, 0) // kept.block_size
        self.max_hit = np.minimum(rule, kept.num_blocks)
        self.row = np.repeat(np.arange(len(kept.prompt_tokens)), np.diff(kept.ptr))
        hit: IntArray = np.clip(self.max_hit[self.row] - kept.depth, 0, kept.weight)
        self.may_hit = hit.astype(np.int64)  # (k,) blocks
        _, nodes = np.unique(kept.ids, return_inverse=True)
        self.nodes = nodes.reshape(-1).astype(np.int64)
        self.own = self._own()
        self.prompt_key = kept.prompt_key
        self.replay = replay_kinds(self.prompt_key, kept.session)

    def _own(self) -> BoolArray:
        """(k,) whether the touch's session had the block in an earlier request."""
        pair = self.kept.session[self.row] * (self.nodes.max(initial=0) + 1) + self.nodes
        _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        own: BoolArray = self.row[first[inverse.reshape(-1)]] < self.row
        return own

    def stream(self, part: BoolArray) -> NodeStream:
        """Some of the kept touches as weighted nodes, limits of hits in the same weights."""
        kept, heavy = self.kept, self.kept.group < 0
        light_blocks = int(self.max_hit.sum()) - int(self.may_hit[heavy].sum())
        light_kept = int(self.may_hit[part & ~heavy].sum())
        if not light_kept:  # none may hit, yet all take room
            light_blocks = int(kept.num_blocks.sum()) - int(kept.weight[heavy].sum())
            light_kept = int((part & ~heavy).sum())
        light = round(_SCALE * light_blocks / light_kept) if light_kept else 0
        each = np.where(heavy, _SCALE, light)[part]
        weight: IntArray = each * kept.weight[part].astype(np.int64)
        of_node = np.zeros(int(self.nodes.max(initial=-1)) + 1, np.int64)
        of_node[self.nodes[part]] = weight
        num = len(kept.prompt_tokens)
        may_hit = _summed(self.row[part], each * self.may_hit[part], num)
        return NodeStream(
            block_size=kept.block_size,
            event_ptr=pointers(part)[kept.ptr],
            nodes=self.nodes[part],
            weight=of_node,
            event_request=np.arange(num),
            is_arrival=np.ones(num, np.bool_),
            event_time_s=kept.arrival_s,
            requests=NodeRequests(
                prompt_tokens=kept.prompt_tokens,
                max_hit_blocks=may_hit,
                max_hit_tokens=may_hit * kept.block_size,  # the rule is vLLM's: full blocks alone
                own_blocks=_summed(self.row[part], weight * self.own[part], num),
                replay=self.replay,
                prompt_key=self.prompt_key,
                session=kept.session,
            ),
        )


def _summed(row: IntArray, values: IntArray, num_rows: int) -> IntArray:
    found = np.zeros(num_rows, np.int64)
    np.add.at(found, row, values)
    return found


def _default_sizes(kept: KeptTouches, rate: float) -> list[int | None]:
    """Log-spaced sizes up to the estimated number of distinct blocks."""
    ids, first = np.unique(kept.ids, return_index=True)
    is_heavy = kept.group[first] < 0
    heavy = int(kept.weight[first][is_heavy].sum())
    footprint = heavy + (len(ids) - int(is_heavy.sum())) / rate
    return log_spaced(footprint) if footprint >= 1 else []
