"""Runs chunks on a transformers model whose attention reads the paged pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from loadkit.core.errors import InputError
from reference_server.attention import ATTENTION_NAME, Row, Step, choose_backend
from reference_server.block_tree import SCRATCH_PAGE
from reference_server.request import Chunk, Request, SamplingParams
from reference_server.sampling import Sampler


class TransformersRunner:
    """`num_pages` pages of `block_size` token slots for every layer, allocated at once.

    Raises InputError for a model whose layers are not all plain full attention.
    """

    def __init__(self, model: Any, *, num_pages: int, block_size: int):
        config = model.config.get_text_config()
        _require_full_attention(config)
        model.set_attn_implementation(ATTENTION_NAME)
        self.model = model.eval()
        self.block_size = block_size
        self.vocab_size: int = config.vocab_size
        self.max_model_len: int = config.max_position_embeddings
        self.device: torch.device = model.device
        self.backend = choose_backend(self.device, model.dtype, block_size)
        self._pools = _make_pools(config, num_pages * block_size, model.dtype, self.device)
        self._offsets = torch.arange(block_size)
        self._sampler = Sampler()

    @torch.inference_mode()
    def execute(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """One forward pass over all chunks as one flat batch."""
        rows = self._rows(chunks)
        step = Step(
            self.backend,
            self._pools,
            torch.cat([row.write for row in rows]),
            self.backend.prepare(rows),
        )
        sampling = [i for i, chunk in enumerate(chunks) if chunk.samples]
        logits = self._forward(chunks, [rows[i].end - 1 for i in sampling] or [0], step)
        tokens: list[int | None] = [None] * len(chunks)
        if sampling:
            sampled = self._sampler.sample(logits, [chunks[i] for i in sampling])
            for index, token in zip(sampling, sampled, strict=True):
                tokens[index] = token
        return tokens

    def probe(self) -> None:
        """One token into the scratch page; raises if model or device are broken."""
        request = Request([0], self.block_size, b"", SamplingParams(max_tokens=1))
        request.pages = [SCRATCH_PAGE]
        self.execute([Chunk(request, 0, 1)])

    def _forward(self, chunks: Sequence[Chunk], wanted: list[int], step: Step) -> Tensor:
        """Logits (len(wanted), vocab) of these rows of the flat batch."""
        ids: list[int] = []
        positions: list[int] = []
        for chunk in chunks:
            ids += chunk.request.tokens[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
        output = self.model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, device=self.device),
            paged_step=step,
        )
        logits: Tensor = output.logits[0]
        return logits

    def _rows(self, chunks: Sequence[Chunk]) -> list[Row]:
        rows, begin = [], 0
        for chunk in chunks:
            rows.append(self._row(chunk, begin))
            begin += chunk.num_tokens
        return rows

    def _row(self, chunk: Chunk, begin: int) -> Row:
        pages = chunk.request.pages
        slots = (torch.tensor(pages)[:, None] * self.block_size + self._offsets).view(-1)
        slots = slots[: chunk.end]
        write = slots[chunk.start :]
        num_scratch = min(chunk.end, chunk.first_writable) - chunk.start
        if num_scratch > 0:
            write = write.clone()
            places = torch.arange(chunk.start, chunk.start + num_scratch) % self.block_size
            write[:num_scratch] = SCRATCH_PAGE * self.block_size + places
        return Row(
            begin,
            begin + chunk.num_tokens,
            slots.to(self.device),
            write.to(self.device),
            pages,
        )


def _make_pools(
    config: Any, num_slots: int, dtype: torch.dtype, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """(keys, values) a layer, each (num_slots, kv heads, head dim). InputError if too large."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (num_slots, config.num_key_value_heads, head_dim)
    try:
        return [
            (
                torch.zeros(shape, dtype=dtype, device=device),
                torch.zeros(shape, dtype=dtype, device=device),
            )
            for _ in range(config.num_hidden_layers)
        ]
    except RuntimeError as error:
        raise InputError(
            f"no memory for {num_slots} tokens of K/V", where="--num-blocks", remedy="take fewer"
        ) from error


def _require_full_attention(config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "attn_logit_softcapping", None):
        raise InputError(
            f"layers of kind {', '.join(sorted(kinds))} are not supported",
            where="--model",
            remedy="use a model with plain full attention, such as Llama, Qwen or SmolLM",
        )
