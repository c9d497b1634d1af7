"""What `loadkit analyze` can be asked beside the exact curve: engine rules and simulated caches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from loadkit.core.errors import InputError
from loadkit.core.units import parse_capacity

if TYPE_CHECKING:
    from loadkit.analysis.simulate.answers import Asked
    from loadkit.core.trace import Trace
    from loadkit.traces import Log

Value = TypeVar("Value")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _option(name: str, help: str, metavar: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar)
    return option


Engine = Annotated[str, _option("--engine", "Its hit rule: vllm, sglang, llamacpp, none.", "NAME")]
PageSize = Annotated[
    int | None, _option("--page-size", "SGLang's tokens a page; 1 unless given.", "N")
]
NumSlots = Annotated[
    int | None, _option("--slots", "llama.cpp's slots (its --parallel), with that engine.", "N")
]
SlotSimilarity = Annotated[
    float, _option("--slot-similarity", "llama.cpp's --slot-prompt-similarity.", "SHARE")
]
Policies = Annotated[
    str | None,
    _option("--policy", "Eviction to compare: lru,lfu,lfu-plain,slru,gdsf,diversity.", "LIST"),
]
Ttl = Annotated[str | None, _option("--ttl", "Expiry, restarted by use: 300,5m,1h.", "LIST")]
TtlFixed = Annotated[str | None, _option("--ttl-fixed", "Expiry counted from computation.", "LIST")]
Tiers = Annotated[
    str | None, _option("--tiers", "Exclusive LRU of device, host, disk: 10k,100k,1M.", "LIST")
]
InFlight = Annotated[
    str | None,
    _option("--in-flight", "Overlap, twins in flight treated as: wait,share,recompute.", "LIST"),
]
Latency = Annotated[
    float | None, _option("--latency", "Seconds a request, if the log lacks them.", "S")
]
PrefillRate = Annotated[
    float | None, _option("--prefill-rate", "Prompt tokens a second, for --in-flight.", "N")
]


def read(
    logs: list[Path],
    format: str,
    tokenizer: str | None,
    block_size: int | None,
    *,
    engine: str,
    page_size: int | None,
    strict: bool = False,
    skip_bad: bool = False,
) -> Log:
    """Read the log in the engine's blocks: its pages for SGLang, single tokens for llama.cpp.

    A log of ids keeps its own blocks, or is put together into pages; a warning then says that the
    matched lengths are rounded down.
    """
    from loadkit.analysis.engines import TOKEN_GRANULAR, check_engine
    from loadkit.cli import log_input
    from loadkit.traces.registry import TEXT_FORMATS, detect

    check_engine(engine)
    rows = {"strict": strict, "skip_bad": skip_bad}
    if page_size is not None and engine != "sglang":
        raise InputError("pages are SGLang's", where="--page-size", remedy="--engine sglang")
    if engine not in TOKEN_GRANULAR:
        return log_input.read(logs, format, tokenizer, block_size, **rows)
    name = detect(logs, skip_bad=skip_bad) if format == "auto" else format
    if name in TEXT_FORMATS:
        return log_input.read(logs, name, tokenizer, page_size or block_size or 1, **rows)
    return _paged(log_input.read(logs, name, tokenizer, block_size, **rows), page_size)


def _paged(log: Log, page_size: int | None) -> Log:
    from loadkit.analysis.engines import in_pages

    if page_size is not None:
        return replace(log, trace=in_pages(log.trace, page_size))
    note = (
        f"the log has block ids, so matches are rounded down to {log.trace.block_size} tokens;"
        " token granularity needs a log of tokens or text"
    )
    return replace(log, trace=replace(log.trace, warnings=(*log.trace.warnings, note)))


def asked(
    block_size: int,
    engine: str,
    capacity: str | None,
    *,
    slots: int | None,
    slot_similarity: float,
    policy: str | None,
    ttl: str | None,
    ttl_fixed: str | None,
    tiers: str | None,
    in_flight: str | None,
    latency: float | None,
    prefill_rate: float | None,
) -> Asked:
    """The options as one question. InputError for what is not understood or does not go together."""
    from loadkit.analysis.simulate.answers import Asked

    if (slots is None) == (engine == "llamacpp"):
        raise InputError(
            "slots and the engine llamacpp go together",
            where="--slots",
            remedy="--engine llamacpp --slots N, the server's --parallel",
        )
    return Asked(
        capacities=tuple(_listed(capacity, lambda text: parse_capacity(text, block_size))),
        policies=tuple(_listed(policy, str)),
        ttls_s=tuple(_listed(ttl, lambda text: seconds(text, "--ttl"))),
        fixed_ttls_s=tuple(_listed(ttl_fixed, lambda text: seconds(text, "--ttl-fixed"))),
        tiers=tuple(_listed(tiers, lambda text: _tier(text, block_size))),
        slots=slots,
        slot_similarity=slot_similarity,
        in_flight=tuple(_listed(in_flight, str)),
        latency_s=latency,
        prefill_tokens_per_s=prefill_rate,
    )


def answers(trace: Trace, engine: str, asked: Asked) -> dict[str, Any]:
    """JSON lists of what was asked beside the curve; the pass runs again only if something was."""
    from loadkit.analysis.reuse import reuse_of
    from loadkit.analysis.simulate.answers import Asked, answers

    if asked == Asked(capacities=asked.capacities):
        return {}
    return answers(reuse_of(trace, engine), asked)


def _listed(text: str | None, parse: Callable[[str], Value]) -> list[Value]:
    return [] if text is None else [parse(part.strip()) for part in text.split(",")]


def seconds(text: str, option: str) -> float:
    """`300`, `5m` or `1h` in seconds. InputError under the option's name if it is none."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", text)
    if match is None or float(match[1]) <= 0:
        raise InputError(
            f"time {text!r} is not understood", where=option, remedy="as 300, 5m or 1h, above 0"
        )
    return float(match[1]) * _SECONDS[match[2]]


def _tier(text: str, block_size: int) -> int:
    blocks = parse_capacity(text, block_size)
    if blocks is None:
        raise InputError("a tier cannot be infinite", where="--tiers", remedy="give its size")
    return blocks
