"""What an engine's /metrics say of its cache: block size, blocks, engines, on or off.

- vLLM: the labels of `vllm:cache_config_info`, one series an engine (data parallel). One block of each
  pool is a placeholder and never holds tokens. `kv_cache_size_tokens`, where there is one, differs from
  blocks times size for models with layers of several kinds: then the blocks are no one LRU queue.
  `block_size` is that of the smallest kind of block; a hit ends at a multiple of all kinds'
  (`effective_attention_block_size`, `cache_hit_alignment_tokens` where it is told), or of
  `prefix_match_unit` where states are cut finer. Versions that raise a hybrid's block without telling
  show 16: with states and no word of the attention's block, a small one is not believed.
  `mamba_block_size` is the size asked for, not the one in use (vLLM 0.32).
- SGLang: the gauges `sglang:page_size` and `sglang:num_pages`, before 0.5.11 the labels of
  `sglang:cache_config_info`; ranks of one `dp_rank` show the same pool. With a tier in host memory
  (`sglang:hicache_host_total_tokens`) the pages alone say nothing of what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from loadkit.client.foreign import MAX_COUNT, Malformed
from loadkit.client.prometheus import samples
from loadkit.core.cache_layout import kept_blocks

T = TypeVar("T")
Series = list[tuple[Mapping[str, str], float]]
_LARGEST_USUAL_BLOCK = 128
MAX_ENGINES = 1 << 20
_NAMES = (
    "vllm:cache_config_info",
    "sglang:page_size",
    "sglang:num_pages",
    "sglang:cache_config_info",
    "sglang:hicache_host_total_tokens",
)


class CacheSetup(msgspec.Struct, frozen=True):
    """None: not told. block_size: hits end at its multiples; num_blocks that can hold tokens, summed
    over `engines`, each of which has a cache of its own. prefix_caching False: nothing is ever reused.
    kept_blocks: see `core.trace.Trace`, empty where every block is kept or nobody says."""

    engines: int
    block_size: int | None = None
    num_blocks: int | None = None
    prefix_caching: bool | None = None
    kept_blocks: tuple[int, ...] = ()


def parse_cache_setup(text: str) -> CacheSetup | None:
    """The setup that a metrics page tells; None if it tells of none, or is no metrics page."""
    series: dict[str, Series] = {}
    try:
        for sample in samples(text, _NAMES):
            series.setdefault(sample.name, []).append((sample.labels, sample.value))
    except Malformed:
        return None
    return _vllm(series) or _sglang(series)


def _vllm(series: Mapping[str, Series]) -> CacheSetup | None:
    """A router that adds up the pages of equal engines shows how many there are as the value."""
    shown = _of(series, "vllm:cache_config_info")
    engines = {
        labels.get("engine", ""): (labels, max(1, round(count)))
        for labels, count in shown
        if 0 <= count < MAX_ENGINES
    }
    if not engines:
        return None
    told = [(*_vllm_blocks(labels), count) for labels, count in engines.values()]
    kept = {_vllm_kept(labels, _hit_size(labels)) for labels, _ in engines.values()}
    sizes = {size for size, _, _ in told}
    on = {labels.get("enable_prefix_caching", "") for labels, _ in engines.values()}
    return CacheSetup(
        sum(count for _, _, count in told),
        _only(sizes),
        _sum(None if one is None else one * count for _, one, count in told)
        if len(sizes) == 1
        else None,
        {"True": True, "False": False}.get(_only(on) or ""),
        _only(kept) or (),
    )


def _vllm_blocks(labels: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Block size and blocks of one engine."""
    blocks, size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
    if size is None or blocks is None or not _is_one_queue(labels) or _has_states(labels):
        return _hit_size(labels), None
    return _hit_size(labels), blocks - 1


def _hit_size(labels: Mapping[str, str]) -> int | None:
    """Tokens at whose multiples hits end."""
    told = _number(labels.get("cache_hit_alignment_tokens"))
    small, attention = (
        _number(labels.get(name)) for name in ("block_size", "effective_attention_block_size")
    )
    if told is not None or small is None:
        return told
    if _has_states(labels):
        unit = _number(labels.get("prefix_match_unit"))
        if unit is not None:
            return unit if _number(labels.get("sliding_window")) is None else None
        if attention is None and small <= _LARGEST_USUAL_BLOCK:
            return None
    size = math.lcm(small, attention or small)
    return size if size < MAX_COUNT else None


def _vllm_kept(labels: Mapping[str, str], size: int | None) -> tuple[int, ...]:
    """Since 0.29 an interval of 0 keeps states and windows at a few places; "None" is every block."""
    if labels.get("prefix_cache_retention_interval") != "0" or size is None:
        return ()
    window = None if _is_one_queue(labels) else _number(labels.get("sliding_window"))
    return kept_blocks(size, states=_has_states(labels), window=window)


def _has_states(labels: Mapping[str, str]) -> bool:
    return labels.get("mamba_cache_mode") in ("align", "all")


def _is_one_queue(labels: Mapping[str, str]) -> bool:
    """Whether blocks are of one kind, or nobody says: then tokens are blocks times their size."""
    size, blocks = _number(labels.get("block_size")), _number(labels.get("num_gpu_blocks"))
    tokens = _number(labels.get("kv_cache_size_tokens"))
    if size is None or blocks is None or tokens is None:
        return True
    return (blocks - 2) * size <= tokens <= blocks * size


def _sglang(series: Mapping[str, Series]) -> CacheSetup | None:
    sizes, pages = (_by_rank(_of(series, f"sglang:{name}")) for name in ("page_size", "num_pages"))
    for labels, _ in _of(series, "sglang:cache_config_info"):
        rank = labels.get("dp_rank", "")
        sizes.setdefault(rank, _number(labels.get("page_size")))
        pages.setdefault(rank, _number(labels.get("num_pages")))
    if not sizes:
        return None
    same = len(set(sizes.values())) == 1 and sizes.keys() == pages.keys()
    tiered = any(value > 0 for _, value in _of(series, "sglang:hicache_host_total_tokens"))
    num_pages = _sum(pages.values()) if same and not tiered else None
    return CacheSetup(len(sizes), _only(set(sizes.values())), num_pages)


def _by_rank(series: Series) -> dict[str, int | None]:
    return {labels.get("dp_rank", ""): _number(str(value)) for labels, value in series}


def _of(series: Mapping[str, Series], name: str) -> Series:
    return series.get(name, [])


def _only(values: set[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _number(label: str | None) -> int | None:
    """A positive whole number; None for anything else, such as vLLM's "None"."""
    try:
        value = float(label or "")
    except ValueError:
        return None
    return int(value) if 0 < value < MAX_COUNT and value.is_integer() else None
