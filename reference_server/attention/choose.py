"""Which backend a device gets: the fastest that a probe shows to be right there."""

from __future__ import annotations

import sys

import torch

from reference_server.attention.base import Backend, Row
from reference_server.attention.sdpa import SdpaBackend
from reference_server.attention.varlen import VarlenBackend, activate, deactivate


def choose_backend(
    device: torch.device, dtype: torch.dtype, block_size: int, heads: tuple[int, int, int]
) -> Backend:
    """`heads`: the model's attention heads, K/V heads and head dim, with which is probed. Why block
    tables are not used on CUDA is said on stderr."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return SdpaBackend()
    try:
        backend = VarlenBackend(block_size)
        activate(device)
        if agrees(backend, device, dtype, block_size, heads):
            return backend
        problem = "its probe disagrees with SDPA"
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        problem = str(error).splitlines()[0]
    deactivate()
    print(f"loadkit serve: attention gathers K/V, no block tables: {problem}", file=sys.stderr)
    return SdpaBackend()


@torch.inference_mode()
def agrees(
    backend: Backend,
    device: torch.device,
    dtype: torch.dtype,
    block_size: int,
    heads: tuple[int, int, int],
) -> bool:
    """Same output as SDPA on one prompt chunk and one decode over shuffled pages."""
    num_heads, num_kv_heads, dim = heads
    generator = torch.Generator(device).manual_seed(1)
    shape = (8 * block_size, num_kv_heads, dim)
    keys, values, query = (
        torch.randn(size, generator=generator, device=device, dtype=dtype)
        for size in (shape, shape, (3, num_heads, dim))
    )
    slots = torch.arange(shape[0]).view(8, block_size)
    rows = [
        Row(begin, end, slots[pages].flatten()[:context], slots[0][:0], pages)
        for begin, end, pages, context in (
            (0, 2, [3, 1, 6], 2 * block_size + 1),
            (2, 3, [2, 5], block_size + 1),
        )
    ]
    found, wanted = (
        b.attend(query, (keys, values), dim**-0.5, b.prepare(rows, device))
        for b in (backend, SdpaBackend())
    )
    return bool(torch.allclose(found.float(), wanted.float(), atol=2e-2, rtol=2e-2))
