"""`loadkit analyze --sample 1%`: a log too large for memory, from a sample of its blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from loadkit.cli import log_input
from loadkit.cli.log_input import Answer, CheckedSource
from loadkit.cli.options import option
from loadkit.core.errors import InputError

if TYPE_CHECKING:
    from loadkit.analysis.sampling import SampledAnalysis


@dataclass(frozen=True)
class Sampling:
    """Whether the log is sampled, and where."""

    sample: Annotated[
        str | None,
        option("Keep this share of the log's light blocks: for logs beyond memory.", "1%"),
    ] = None
    engine_distributed: Annotated[
        str | None,
        option(
            "With --sample: hash the log's files on a cluster (RAY_ADDRESS, else this machine).",
            "ray",
        ),
    ] = None

    def check(self) -> None:
        """InputError for an engine that there is not, or one that has nothing to do."""
        where = "--engine-distributed"
        if self.engine_distributed not in (None, "ray"):
            what = f"unknown engine {self.engine_distributed!r}"
            raise InputError(what, where=where, remedy="ray")
        if self.engine_distributed is not None and self.sample is None:
            raise InputError("a cluster takes samples", where=where, remedy="add --sample 1%")


_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)%")


def parse_share(text: str) -> float:
    """`1%` is .01. InputError unless above 0 and at most 100%."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise InputError(
            f"sample {text!r} is not understood", where="--sample", remedy="a share as 1% or 0.1%"
        )
    return float(match[1]) / 100


Sizes = Callable[[int], Sequence[int | None]]


def sizes_of(capacity: str | None) -> Sizes:
    """The capacities in blocks of the log's size, which is known only once it is read."""
    from loadkit.core.units import parse_capacities

    return lambda block_size: parse_capacities(capacity, block_size) if capacity else ()


def analyze_sample(
    source: CheckedSource, share: float, sizes: Sizes
) -> tuple[SampledAnalysis, str]:
    """The estimate and the log's format, read here. InputError for text without a tokenizer."""
    from loadkit.analysis.sampling import analyze_sampled
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.traces.reading import Reading
    from loadkit.traces.registry import detect, other_than

    name = source.format
    if name == "auto":
        name = detect(source.logs, skip_bad=source.skip_bad)
    served = None if source.tokenizer is None else load_tokenizer(source.tokenizer)
    with log_input.progress_bar() as told:
        reading = Reading(
            source.logs, skip_bad=source.skip_bad, on_progress=told, recognise=other_than(name)
        )
        found = analyze_sampled(reading, name, share, sizes, source.block_size, tokenizer=served)
    return found, name


def analyze_on_cluster(
    source: CheckedSource, share: float, sizes: Sizes
) -> tuple[SampledAnalysis, str]:
    """The same from shards that a Ray cluster reads, which every one of its nodes can open."""
    from loadkit.analysis.distributed import Question, analyze_on_ray

    question = Question(share, source.format, source.tokenizer, source.block_size, source.skip_bad)
    found = analyze_on_ray(source.logs, question, sizes)
    return found.analysis, found.format


def check_alone(options: Mapping[str, object]) -> None:
    """InputError for the first option that is set and says something that a sample cannot answer."""
    for name, value in options.items():
        if value not in (None, False):
            raise InputError("not to be had from a sample", where=name, remedy="leave out --sample")


def run(source: CheckedSource, sampling: Sampling, capacity: str | None, answer: Answer) -> None:
    """Estimate, and give the answer. `sampling` names a share."""
    from loadkit.cli import sample_view

    estimate = analyze_sample if sampling.engine_distributed is None else analyze_on_cluster
    found, name = estimate(source, parse_share(sampling.sample or ""), sizes_of(capacity))
    answer.give(found.to_dict() | {"format": name}, lambda: sample_view.show(found, name))
