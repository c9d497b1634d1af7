"""From logits to the next token: greedy, or seeded temperature, top-k and top-p sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from reference_server.request import Chunk, Sample


class Sampler:
    """Greedy rows go through one argmax; the others one by one with the request's generator."""

    def sample(self, logits: Tensor, chunks: Sequence[Chunk]) -> list[Sample]:
        """Next token of each row of `logits` (rows, vocab); chunk i belongs to row i."""
        for row, chunk in enumerate(chunks):
            if chunk.banned_ids:
                logits[row, list(chunk.banned_ids)] = -torch.inf
        tokens: list[int] = logits.argmax(-1).tolist()
        for row, chunk in enumerate(chunks):
            if chunk.request.params.temperature > 0:
                tokens[row] = self._draw(logits[row], chunk)
        return [
            Sample(token)
            if chunk.request.params.num_logprobs is None
            else _with_logprobs(token, row, chunk.request.params.num_logprobs)
            for token, row, chunk in zip(tokens, logits, chunks, strict=True)
        ]

    def _draw(self, logits: Tensor, chunk: Chunk) -> int:
        params = chunk.request.params
        logits = logits.float().cpu()
        if 0 < params.top_k < len(logits):
            least = logits.topk(params.top_k).values[-1]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = torch.softmax(logits / params.temperature, -1)
        if params.top_p < 1:
            probabilities = _keep_top(probabilities, params.top_p)
        return int(torch.multinomial(probabilities, 1, generator=_generator(chunk)))


def _with_logprobs(token: int, logits: Tensor, num_top: int) -> Sample:
    logprobs = torch.log_softmax(logits.float(), -1)
    top = logprobs.topk(min(num_top, len(logprobs))) if num_top else None
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top else ()
    return Sample(token, float(logprobs[token]), tuple(pairs))


def _keep_top(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of tokens whose probabilities reach `top_p` (at least one)."""
    ordered, places = probabilities.sort(descending=True)
    ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
    return torch.zeros_like(probabilities).scatter_(0, places, ordered)


def _generator(chunk: Chunk) -> torch.Generator:
    """The request's own random stream; without a seed it starts from the system's entropy."""
    request = chunk.request
    if request.sampler_state is None:
        generator = torch.Generator()
        if request.params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(request.params.seed)
        request.sampler_state = generator
    return cast(torch.Generator, request.sampler_state)
