"""What `loadkit analyze` can be asked beside the exact curve: engine rules and simulated caches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from loadkit.cli.log_input import CheckedSource
from loadkit.cli.options import Latency, PageSize, PrefillRate, option
from loadkit.cli.served_model import ServedModel, engine_note
from loadkit.core.errors import InputError
from loadkit.core.units import parse_capacity

if TYPE_CHECKING:
    from loadkit.analysis.simulate.answers import Asked
    from loadkit.core.trace import Trace
    from loadkit.traces import Log

Value = TypeVar("Value")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Simulated:
    """The engine's rule, and the caches to simulate."""

    engine: Annotated[str, option("vllm, sglang, reference, llamacpp or none.", "NAME")] = "vllm"
    page_size: PageSize = None
    slots: Annotated[
        int | None, option("llama.cpp's slots (its --parallel), with that engine.", "N")
    ] = None
    slot_similarity: Annotated[float, option("llama.cpp's --slot-prompt-similarity.", "SHARE")] = (
        0.1
    )
    policy: Annotated[
        str | None, option("Eviction to compare: lru,lfu,lfu-plain,slru,gdsf,diversity.", "LIST")
    ] = None
    ttl: Annotated[str | None, option("Expiry, restarted by use: 300,5m,1h.", "LIST")] = None
    ttl_fixed: Annotated[str | None, option("Expiry counted from computation.", "LIST")] = None
    tiers: Annotated[
        str | None, option("Exclusive LRU of device, host, disk: 10k,100k,1M.", "LIST")
    ] = None
    latency: Latency = None
    prefill_rate: PrefillRate = None

    def asked(self, block_size: int, capacity: str | None) -> Asked:
        """One question. InputError for what is not understood or does not go together."""
        from loadkit.analysis.simulate.answers import Asked

        if (self.slots is None) == (self.engine == "llamacpp"):
            raise InputError(
                "slots and the engine llamacpp go together",
                where="--slots",
                remedy="--engine llamacpp --slots N, the server's --parallel",
            )
        return Asked(
            capacities=tuple(_listed(capacity, lambda text: parse_capacity(text, block_size))),
            policies=tuple(_listed(self.policy, str)),
            ttls_s=tuple(_listed(self.ttl, lambda text: seconds(text, "--ttl"))),
            fixed_ttls_s=tuple(_listed(self.ttl_fixed, lambda text: seconds(text, "--ttl-fixed"))),
            tiers=tuple(_listed(self.tiers, lambda text: _tier(text, block_size))),
            slots=self.slots,
            slot_similarity=self.slot_similarity,
            latency_s=self.latency,
        )


def read(
    source: CheckedSource, engine: str, page_size: int | None, model: ServedModel | None = None
) -> Log:
    """Read the log in the engine's blocks: the model's for vLLM, pages for SGLang, single tokens for
    llama.cpp.

    A log of ids keeps its own blocks, or is put together into pages; a warning then says that the
    matched lengths are rounded down.
    """
    log = _read(source, engine, page_size, model or ServedModel())
    said = engine_note(engine, model.layout() if model else None)
    if said is None:
        return log
    return replace(log, trace=replace(log.trace, warnings=(*log.trace.warnings, said)))


def _read(source: CheckedSource, engine: str, page_size: int | None, model: ServedModel) -> Log:
    from loadkit.analysis.engines import TOKEN_GRANULAR, check_engine
    from loadkit.traces.registry import TEXT_FORMATS, detect

    check_engine(engine)
    if page_size is not None and engine != "sglang":
        raise InputError("pages are SGLang's", where="--page-size", remedy="--engine sglang")
    if engine not in TOKEN_GRANULAR:
        return model.read(source) if engine == "vllm" else source.read()
    name = source.format
    if name == "auto":
        name = detect(source.logs, skip_bad=source.skip_bad)
    if name in TEXT_FORMATS:
        size = page_size or source.block_size or 1
        return replace(source, format=name, block_size=size).read()
    return _paged(replace(source, format=name).read(), page_size)


def _paged(log: Log, page_size: int | None) -> Log:
    from loadkit.analysis.engines import in_pages

    if page_size is not None:
        return replace(log, trace=in_pages(log.trace, page_size))
    note = (
        f"the log has block ids, so matches are rounded down to {log.trace.block_size} tokens;"
        " token granularity needs a log of tokens or text"
    )
    return replace(log, trace=replace(log.trace, warnings=(*log.trace.warnings, note)))


def answers(trace: Trace, engine: str, asked: Asked) -> dict[str, Any]:
    """JSON lists of what was asked beside the curve; the pass runs again only if something was."""
    from loadkit.analysis.reuse import reuse_of
    from loadkit.analysis.simulate.answers import Asked, answers

    if asked == Asked(capacities=asked.capacities, latency_s=asked.latency_s):
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
