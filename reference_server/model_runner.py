"""Runs chunks on a transformers model whose attention reads the paged pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference_server.attention import ATTENTION_NAME, Row, Step, choose_backend
from reference_server.block_tree import SCRATCH_PAGE
from reference_server.cuda_graphs import DecodeGraphs
from reference_server.fused_linear import fuse
from reference_server.kv_pool import KVPool, head_shape
from reference_server.request import Chunk, Request, Sample, SamplingParams
from reference_server.sampling import Sampler
from reference_server.supported import OwnAnswer, require_plain_attention

MAX_GRAPH_BATCH = 64


class TransformersRunner:
    """A model with its pool of K/V pages. It takes the model over: its linear layers are fused.

    Raises InputError for a model that paged attention would not serve rightly; see `supported`.
    """

    def __init__(self, model: Any, *, num_pages: int, block_size: int):
        config = model.config.get_text_config()
        require_plain_attention(config)
        self.model = model.eval()
        self.block_size = block_size
        self.vocab_size: int = config.vocab_size
        self.max_model_len: int = config.max_position_embeddings
        self.device: torch.device = model.device
        pool_tokens = (num_pages - 1) * block_size
        own = OwnAnswer(model, min(pool_tokens, self.max_model_len))
        model.set_attn_implementation(ATTENTION_NAME)
        fuse(model)
        self.backend = choose_backend(self.device, model.dtype, block_size, head_shape(config))
        self.pages = KVPool(config, num_pages, block_size, model.dtype, self.device)
        self._offsets = torch.arange(block_size)
        self._sampler = Sampler()
        self.graphs = self._make_graphs(min(pool_tokens, self.max_model_len))
        own.require_same(self)

    @torch.inference_mode()
    def execute(self, chunks: Sequence[Chunk]) -> list[list[Sample]]:
        """One forward pass over all chunks as one flat batch."""
        logits = self.graphs.logits(chunks) if self.graphs is not None else None
        if logits is not None:
            return [[sample] for sample in self._sampler.sample(logits, chunks)]
        rows = self._rows(chunks)
        step = Step(
            self.backend,
            self.pages.layers,
            torch.cat([row.write for row in rows]).to(self.device),
            self.backend.prepare(rows, self.device),
        )
        wanted = [_wanted(chunk, row) for chunk, row in zip(chunks, rows, strict=True)]
        logits = self._compute(chunks, [i for places in wanted for i in places] or [0], step)
        sampling = [chunk for chunk, places in zip(chunks, wanted, strict=True) for _ in places]
        samples = iter(self._sampler.sample(logits, sampling) if sampling else ())
        return [[next(samples) for _ in places] for places in wanted]

    def probe(self) -> None:
        """One token into the scratch page; raises if model or device are broken."""
        request = Request([0], self.block_size, b"", SamplingParams(max_tokens=1))
        request.pages = [SCRATCH_PAGE]
        self.execute([Chunk(request, 0, 1)])

    def _compute(self, chunks: Sequence[Chunk], wanted: list[int], step: Step) -> Tensor:
        """Logits (len(wanted), vocab) of these rows of the flat batch."""
        ids: list[int] = []
        positions: list[int] = []
        for chunk in chunks:
            ids += chunk.token_ids
            positions += range(chunk.start, chunk.end_computed)
        return self.forward(
            torch.tensor(ids, device=self.device),
            torch.tensor(positions, device=self.device),
            torch.tensor(wanted, device=self.device),
            step,
        )

    def forward(self, ids: Tensor, positions: Tensor, wanted: Tensor, step: Step) -> Tensor:
        """ids and positions (tokens,), wanted (n,) rows whose logits (n, vocab) are returned."""
        output = self.model(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=wanted,
            paged_step=step,
        )
        logits: Tensor = output.logits[0]
        return logits

    def _make_graphs(self, max_len: int) -> DecodeGraphs | None:
        """CUDA with block tables only: other backends build their state anew every step."""
        if self.device.type != "cuda" or self.backend.name != "varlen":
            return None
        return DecodeGraphs(
            self.forward,
            self.backend,
            self.pages.layers,
            block_size=self.block_size,
            max_len=max_len,
            max_batch=MAX_GRAPH_BATCH,
            device=self.device,
        )

    def _rows(self, chunks: Sequence[Chunk]) -> list[Row]:
        rows, begin = [], 0
        for chunk in chunks:
            rows.append(self._row(chunk, begin))
            begin = rows[-1].end
        return rows

    def _row(self, chunk: Chunk, begin: int) -> Row:
        pages = chunk.request.pages
        slots = (torch.tensor(pages)[:, None] * self.block_size + self._offsets).view(-1)
        slots = slots[: chunk.end_computed]
        write = slots[chunk.start :]
        num_scratch = min(chunk.end, chunk.first_writable) - chunk.start
        if num_scratch > 0:
            write = write.clone()
            places = torch.arange(chunk.start, chunk.start + num_scratch) % self.block_size
            write[:num_scratch] = SCRATCH_PAGE * self.block_size + places
        return Row(begin, begin + len(write), slots, write, pages)


def _wanted(chunk: Chunk, row: Row) -> range:
    """Rows of the flat batch whose logits are needed: the chunk's last token and its draft."""
    return range(row.end - len(chunk.draft) - 1, row.end) if chunk.samples else range(0)
