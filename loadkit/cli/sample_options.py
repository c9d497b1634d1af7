"""`loadkit analyze --sample 1%`: a log too large for memory, from a sample of its blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from loadkit.cli import log_input
from loadkit.core.errors import InputError

if TYPE_CHECKING:
    from loadkit.analysis.sampling import SampledAnalysis

Sample = Annotated[
    str | None,
    typer.Option(
        "--sample",
        help="Keep this share of the log's light blocks: for logs beyond memory.",
        metavar="1%",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine-distributed",
        help="With --sample: hash the log's files on a cluster (RAY_ADDRESS, else this machine).",
        metavar="ray",
    ),
]
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)%")


def parse_share(text: str) -> float:
    """`1%` is .01. InputError unless above 0 and at most 100%."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise InputError(
            f"sample {text!r} is not understood", where="--sample", remedy="a share as 1% or 0.1%"
        )
    return float(match[1]) / 100


class Sampling(NamedTuple):
    """A log that is sampled, how it is read, and what is asked of it."""

    logs: Sequence[Path]
    format: str
    share: str
    capacity: str | None
    tokenizer: str | None
    block_size: int | None
    skip_bad: bool

    def sizes(self, block_size: int) -> Sequence[int | None]:
        """The capacities in blocks of the log's size, which is known only once it is read."""
        from loadkit.core.units import parse_capacities

        return parse_capacities(self.capacity, block_size) if self.capacity else ()


def analyze_sample(asked: Sampling) -> tuple[SampledAnalysis, str]:
    """The estimate and the log's format, read here. InputError for text without a tokenizer."""
    from loadkit.analysis.sampling import analyze_sampled
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.traces.reading import Reading
    from loadkit.traces.registry import detect, other_than

    rate, name = parse_share(asked.share), asked.format
    if name == "auto":
        name = detect(asked.logs, skip_bad=asked.skip_bad)
    served = None if asked.tokenizer is None else load_tokenizer(asked.tokenizer)
    with log_input.progress_bar() as told:
        reading = Reading(
            asked.logs, skip_bad=asked.skip_bad, on_progress=told, recognise=other_than(name)
        )
        found = analyze_sampled(
            reading, name, rate, asked.sizes, asked.block_size, tokenizer=served
        )
    return found, name


def analyze_on_cluster(asked: Sampling) -> tuple[SampledAnalysis, str]:
    """The same from shards that a Ray cluster reads, which every one of its nodes can open."""
    from loadkit.analysis.distributed import Question, analyze_on_ray

    question = Question(
        parse_share(asked.share), asked.format, asked.tokenizer, asked.block_size, asked.skip_bad
    )
    found = analyze_on_ray(asked.logs, question, asked.sizes)
    return found.analysis, found.format


def check_engine(engine: str | None, share: str | None) -> None:
    """InputError for an engine that there is not, or one that has nothing to do."""
    if engine is None:
        return
    if engine != "ray":
        raise InputError(f"unknown engine {engine!r}", where="--engine-distributed", remedy="ray")
    if share is None:
        raise InputError(
            "a cluster takes samples", where="--engine-distributed", remedy="add --sample 1%"
        )


def check_alone(options: Mapping[str, object]) -> None:
    """InputError for the first option that is set and says something that a sample cannot answer."""
    for name, value in options.items():
        if value not in (None, False):
            raise InputError("not to be had from a sample", where=name, remedy="leave out --sample")


def run(asked: Sampling, engine: str | None, json: bool, output: Path | None) -> None:
    """Estimate and print, as a person reads it or as one JSON object."""
    from loadkit.cli import sample_view

    found, name = (analyze_sample if engine is None else analyze_on_cluster)(asked)
    data = found.to_dict() | {"format": name}
    if output is not None:
        log_input.write_json(output, data)
    if json:
        print(log_input.as_json(data))
    else:
        sample_view.show(found, name)
