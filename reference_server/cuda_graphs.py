"""Decode steps as captured CUDA graphs: one launch a step instead of hundreds.

Not run on a GPU so far: what is put into the static tensors is tested on the CPU, with a capture
that calls the model again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from reference_server.attention import Backend, Step
from reference_server.page_pool import SCRATCH_PAGE
from reference_server.request import Chunk

Forward = Callable[[Tensor, Tensor, Tensor, Step], Tensor]
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
WARM_UPS = 2  # lets libraries allocate and choose their kernels before the capture


def capture_cuda(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record `work` once; what is returned replays it on the same memory."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class _Static:
    """The inputs of one captured batch size. Unused rows decode one token of the scratch page."""

    def __init__(self, size: int, max_blocks: int, max_len: int, device: torch.device):
        self.ids, self.positions, self.write = (
            torch.zeros(size, dtype=torch.long, device=device) for _ in range(3)
        )
        self.rows = torch.arange(size, device=device)
        self.state: dict[str, Any] = {
            "cu_seq_q": torch.arange(size + 1, dtype=torch.int32, device=device),
            "max_q": 1,
            "max_k": max_len,
            "seqused_k": torch.ones(size, dtype=torch.int32, device=device),
            "block_table": torch.zeros(size, max_blocks, dtype=torch.int32, device=device),
        }

    def fill(self, chunks: Sequence[Chunk], block_size: int) -> None:
        """Of the block table only as many columns as this step needs: what is behind them is old,
        and past `seqused_k`."""
        size, width = self.state["block_table"].shape
        idle = size - len(chunks)
        widest = min(width, max(len(chunk.request.pages) for chunk in chunks))
        tables = [chunk.request.pages[:widest] for chunk in chunks] + [[]] * idle
        pages = [table + [SCRATCH_PAGE] * (widest - len(table)) for table in tables]
        write = [_write_slot(chunk, block_size) for chunk in chunks]
        _set(self.ids, [chunk.token_ids[0] for chunk in chunks] + [0] * idle)
        _set(self.positions, [chunk.start for chunk in chunks] + [0] * idle)
        _set(self.write, write + [SCRATCH_PAGE * block_size] * idle)
        _set(self.state["seqused_k"], [chunk.end for chunk in chunks] + [1] * idle)
        _set(self.state["block_table"][:, :widest], pages)


class DecodeGraphs:
    """Graphs for batches of 1, 2, 4, ... up to `max_batch` single tokens, captured at first use."""

    def __init__(
        self,
        forward: Forward,
        backend: Backend,
        pools: list[tuple[Tensor, Tensor]],
        *,
        block_size: int,
        max_len: int,
        max_batch: int,
        device: torch.device,
        capture: Capture = capture_cuda,
    ):
        self._forward, self._backend, self._pools = forward, backend, pools
        self._block_size, self._max_len, self._device = block_size, max_len, device
        self._max_batch, self._capture = max_batch, capture
        self._graphs: dict[int, tuple[_Static, Callable[[], Tensor]]] = {}
        self._failed = False

    def logits(self, chunks: Sequence[Chunk]) -> Tensor | None:
        """(len(chunks), vocab), or None if the step is not one that was, or can be, captured."""
        decoding = all(c.num_tokens == 1 and c.samples and not c.draft for c in chunks)
        if self._failed or not decoding or len(chunks) > self._max_batch:
            return None
        size = 1 << (len(chunks) - 1).bit_length()
        try:
            static, replay = self._graphs.get(size) or self._make(size)
        except RuntimeError as error:
            print(f"loadkit: no CUDA graphs: {str(error).splitlines()[0]}", file=sys.stderr)
            self._failed = True
            return None
        static.fill(chunks, self._block_size)
        return replay()[: len(chunks)]

    def _make(self, size: int) -> tuple[_Static, Callable[[], Tensor]]:
        max_blocks = -(-self._max_len // self._block_size)
        static = _Static(size, max_blocks, self._max_len, self._device)
        step = Step(self._backend, self._pools, static.write, static.state)

        def work() -> Tensor:
            return self._forward(static.ids, static.positions, static.rows, step)

        self._graphs[size] = static, self._capture(work)
        return self._graphs[size]


def _write_slot(chunk: Chunk, block_size: int) -> int:
    """Where the token's K/V goes: its own slot, or the scratch page's if its block is resident."""
    index, offset = divmod(chunk.start, block_size)
    resident = chunk.start < chunk.first_writable
    page = SCRATCH_PAGE if resident else chunk.request.pages[index]
    return page * block_size + offset


def _set(target: Tensor, values: Sequence[Any]) -> None:
    target.copy_(torch.tensor(values, dtype=target.dtype))
