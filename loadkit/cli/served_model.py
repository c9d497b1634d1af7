"""`--model-config`: the served model's block size and rule, and what it costs this log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec.structs import replace as replace_struct

from loadkit.cli.log_input import Source
from loadkit.cli.options import option
from loadkit.core.cache_layout import CacheLayout, Served, read_bytes_per_token, read_layout
from loadkit.core.errors import InputError
from loadkit.core.units import bytes_as_tokens

if TYPE_CHECKING:
    from rich.console import Console

    from loadkit.analysis.block_sizes import BlockRate
    from loadkit.traces import Log

KEPT = ("places", "all")


@dataclass(frozen=True)
class ServedModel:
    """The model that is served, as far as the cache depends on it."""

    model_config: Annotated[
        Path | None,
        option(
            "The served model's config.json: its block size in vLLM, and capacities in GiB.", "PATH"
        ),
    ] = None
    kv_dtype: Annotated[str | None, option("The KV cache's type if not the model's.", "fp8")] = None
    state_dtype: Annotated[
        str | None, option("The type of Mamba states if not the model's.", "float32")
    ] = None
    tensor_parallel: Annotated[
        int, option("GPUs that share each layer; hybrid models' blocks depend on it.", "N", min=1)
    ] = 1
    kept: Annotated[
        str,
        option(
            "Where vLLM keeps states and windows: places (since 0.29), or all, an upper bound"
            " (before).",
            "NAME",
        ),
    ] = "places"

    def layout(self) -> CacheLayout | None:
        """The model's layout; None where no config was named. InputError for options without it."""
        if self.kept not in KEPT:
            what = f"unknown value {self.kept!r}"
            raise InputError(what, where="--kept", remedy=f"one of {', '.join(KEPT)}")
        if self.model_config is not None:
            return read_layout(
                self.model_config, Served(self.kv_dtype, self.state_dtype, self.tensor_parallel)
            )
        for name, value, usual in (
            ("--kv-dtype", self.kv_dtype, None),
            ("--state-dtype", self.state_dtype, None),
            ("--tensor-parallel", self.tensor_parallel, 1),
            ("--kept", self.kept, "places"),
        ):
            if value != usual:
                remedy = "add --model-config, and sizes in --capacity as 40GiB"
                raise InputError("says nothing by itself", where=name, remedy=remedy)
        return None

    def in_tokens(self, capacity: str | None) -> str | None:
        """The capacities as typed, with sizes in bytes as tokens of the model's."""
        if self.model_config is None or capacity is None or "B" not in capacity:
            return capacity
        size = read_bytes_per_token(self.model_config, self.kv_dtype)
        return bytes_as_tokens(capacity, size)

    def check_block_size(self, given: int | None) -> None:
        """InputError for a sample, which is counted in blocks as given and with every block kept, of
        a model that needs others."""
        layout = self.layout()
        if layout is None or (layout.block_size == 16 and not layout.kept_blocks):
            return
        if given != layout.block_size:
            told = layout.block_size or "N"
            raise InputError(layout.why, where="--sample", remedy=f"give --block-size {told}")

    def keeps(self, layout: CacheLayout, block_size: int) -> tuple[int, ...]:
        """`Trace.kept_blocks` of a log in the model's blocks, or in those that the server is said to
        have instead."""
        if self.kept == "all":
            return ()
        return replace_struct(layout, block_size=block_size).kept_blocks

    def read(self, source: Source) -> Log:
        """The log in the model's blocks, with what was said and not followed as a warning."""
        from loadkit.analysis.block_sizes import long_enough

        layout = self.layout()
        if layout is None:
            return source.read()
        log, notes = _in_blocks(source, layout)
        trace = log.trace
        kept: tuple[int, ...] = ()
        if trace.block_size in (layout.block_size, source.block_size):
            kept = self.keeps(layout, trace.block_size)
            if not long_enough(trace, trace.block_size + 1):
                notes += (f"no prompt reaches {trace.block_size + 1:,} tokens: nothing can hit",)
        notes += () if layout.known and layout.block_size else layout.notes
        warnings = (*trace.warnings, *notes)
        return replace(log, trace=replace(trace, warnings=warnings, kept_blocks=kept))


class ModelBlocks(msgspec.Struct, frozen=True):
    """`model_blocks` of the JSON: the layout, and whether the figures are of it.

    applied: the figures are in the model's blocks. kept: "places" or "all", None where every layer
    keeps every block. at: the same log in blocks of other sizes, every block kept; empty if not asked.
    """

    architecture: str | None
    known: bool
    block_size: int | None
    hash_block: int | None
    applied: bool
    shortest_prefix_tokens: int | None
    shortest_prompt_tokens: int | None
    long_enough: int | None
    kept: str | None
    why: str
    notes: tuple[str, ...]
    at: tuple[BlockRate, ...] = ()


def model_blocks(
    model: ServedModel, log: Log, at: tuple[BlockRate, ...] = ()
) -> ModelBlocks | None:
    """What is told of the model beside the figures; None where no config was named."""
    from loadkit.analysis.block_sizes import long_enough

    layout = model.layout()
    if layout is None:
        return None
    shortest = layout.shortest_prompt
    return ModelBlocks(
        architecture=layout.architecture,
        known=layout.known,
        block_size=layout.block_size,
        hash_block=layout.hash_block,
        applied=log.trace.block_size == layout.block_size,
        shortest_prefix_tokens=layout.shortest_prefix,
        shortest_prompt_tokens=shortest,
        long_enough=None if shortest is None else long_enough(log.trace, shortest),
        kept=model.kept if layout.kept_blocks else None,
        why=layout.why,
        notes=layout.notes,
        at=at,
    )


def same_log_at(model: ServedModel, source: Source, log: Log) -> tuple[BlockRate, ...]:
    """The log's rates at vLLM's usual block sizes and at the model's. A text log is read once more."""
    from loadkit.analysis.block_sizes import USUAL_SIZES, rates_at

    layout = model.layout()
    if layout is None:
        return ()
    fine = log
    if log.trace.block_size != min(USUAL_SIZES):
        usual = min(USUAL_SIZES) if _is_text(log.format) else source.block_size
        fine = replace(source, format=log.format, block_size=usual).read()
    own = layout.block_size or log.trace.block_size
    return rates_at(fine.trace, (*USUAL_SIZES, own))


def show(out: Console, blocks: ModelBlocks | None, rate: float | None) -> None:
    """The model's blocks in a few lines, and the table. rate: the log's, by the model's rule."""
    from rich.table import Table

    from loadkit.cli.rate_tables import count, note, percent

    if blocks is None:
        return
    name = blocks.architecture or "this model"
    if blocks.block_size is None:
        out.print(f"\n{name}: {blocks.why}", style="bold")
    else:
        out.print(f"\n{name} in vLLM: blocks of {blocks.block_size:,} tokens", style="bold")
        out.print(f"{blocks.why}; hashes cover {blocks.hash_block:,} tokens", style="dim")
        out.print(
            f"the shortest prefix that can hit has {blocks.shortest_prefix_tokens:,} tokens, the"
            f" shortest prompt {blocks.shortest_prompt_tokens:,}: {blocks.long_enough:,} prompts are"
            " that long",
            style="dim",
        )
    if blocks.kept == "places":
        out.print(
            "states and windows are kept at the end of each prompt and where two prompts part, so"
            " hits end there (--kept all: as if kept everywhere)",
            style="dim",
        )
    for text in blocks.notes:
        note(out, text)
    if not blocks.at:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("the same log in blocks of", "hit rate", "prompts long enough"):
        table.add_column(column, justify="right")
    for row in blocks.at:
        style = "bold" if row.block_size == blocks.block_size else ""
        cells = f"{row.block_size:,}", percent(row.hit_rate), count(row.long_enough)
        table.add_row(*cells, style=style)
    if blocks.applied and blocks.kept == "places":
        table.add_row("as the model keeps them", percent(rate), "", style="bold")
    out.print()
    out.print(table)


def _in_blocks(source: Source, layout: CacheLayout) -> tuple[Log, tuple[str, ...]]:
    """The log in the model's blocks if that can be, and what must be said."""
    from loadkit.analysis.engines import in_pages
    from loadkit.traces.registry import detect

    size, given = layout.block_size, source.block_size
    name = source.format
    if name == "auto":
        name = detect(source.logs, skip_bad=getattr(source, "skip_bad", False))
    if _is_text(name):
        log = replace(source, format=name, block_size=given or size).read()
        own = log.trace.block_size
        if size is None:
            return log, (f"{layout.why}: figures are for blocks of {own} tokens",)
        return log, _contradiction(given, size, layout)
    log = replace(source, format=name).read()
    own = log.trace.block_size
    if size is None:
        return log, (f"{layout.why}: figures are for blocks of {own} tokens",)
    if size % own:
        what = f"the log has ids of {own} tokens, of which this model's blocks of {size:,}"
        return log, (f"{what} cannot be made: figures are for blocks of {own}",)
    return (log if size == own else replace(log, trace=in_pages(log.trace, size))), ()


def _contradiction(given: int | None, size: int, layout: CacheLayout) -> tuple[str, ...]:
    if given in (None, size):
        return ()
    return (
        f"figures are for --block-size {given}, but vLLM gives {layout.architecture or 'this model'}"
        f" blocks of {size:,} tokens: {layout.why}",
    )


def _is_text(format: str) -> bool:
    from loadkit.traces.registry import TEXT_FORMATS

    return format in TEXT_FORMATS


def engine_note(engine: str, layout: CacheLayout | None) -> str | None:
    """What to say where the engine is not vLLM, whose layout this is."""
    if layout is None or engine == "vllm":
        return None
    if layout.kept_blocks:
        return (
            f"how {engine} keeps this model's states or windows is not modelled: every token counts"
            " as kept"
        )
    return None
