"""From logits to the next token: greedy, or seeded temperature, top-k and top-p sampling.

Everything is computed where the logits are; the host waits once, for the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from reference_server.request import Chunk, Sample, SamplingParams

LEAST_TEMPERATURE = 1e-5  # below it fp32 would divide by nothing; it is as good as greedy


class Sampler:
    """One argmax over all rows; those to be drawn have noise in their probabilities before it."""

    def sample(self, logits: Tensor, chunks: Sequence[Chunk]) -> list[Sample]:
        """Next token of each row of `logits` (rows, vocab), which stay as they are; chunk i belongs
        to row i."""
        allowed = _without_banned(logits, chunks)
        tokens = allowed.argmax(-1)
        drawn = [i for i, chunk in enumerate(chunks) if chunk.request.params.temperature > 0]
        if drawn:
            tokens[drawn] = _draw(allowed[drawn].float(), [chunks[i] for i in drawn])
        return [
            Sample(token)
            if chunk.request.params.num_logprobs is None
            else _with_logprobs(token, row, chunk.request.params.num_logprobs)
            for token, row, chunk in zip(tokens.tolist(), logits, chunks, strict=True)
        ]


def _without_banned(logits: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    banned = [(row, token) for row, chunk in enumerate(chunks) for token in chunk.banned_ids]
    if not banned:
        return logits
    rows, tokens = zip(*banned, strict=True)
    allowed = logits.clone()
    allowed[list(rows), list(tokens)] = -torch.inf
    return allowed


def _draw(logits: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    """(rows,) tokens: the largest p / e with e exponentially distributed is token i with
    probability p[i], so that every request draws from its own stream and none is waited for."""
    params = [chunk.request.params for chunk in chunks]
    temperatures = [max(p.temperature, LEAST_TEMPERATURE) for p in params]
    divisor = torch.tensor(temperatures, device=logits.device)[:, None]
    probabilities = torch.softmax(_restricted(logits, divisor, params), -1)
    noise = torch.empty_like(probabilities)
    for row, chunk in zip(noise, chunks, strict=True):
        row.exponential_(generator=_generator(chunk, logits.device))
    return (probabilities / noise).argmax(-1)


def _restricted(logits: Tensor, divisor: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Logits over temperature; -inf but for each row's top_k tokens, and of those the fewest whose
    probabilities reach top_p (at least one)."""
    vocabulary = logits.shape[-1]
    logits = (logits - logits.amax(-1, keepdim=True)) / divisor
    if all(p.top_p >= 1 and not 0 < p.top_k < vocabulary for p in params):
        return logits
    device = logits.device
    counts = [p.top_k if p.top_k > 0 else vocabulary for p in params]
    most = torch.tensor(counts, device=device)[:, None]
    share = torch.tensor([p.top_p for p in params], device=device)[:, None]
    ordered, places = logits.sort(descending=True, stable=True)
    ordered[torch.arange(vocabulary, device=device) >= most] = -torch.inf
    probabilities = torch.softmax(ordered, -1)
    before = probabilities.cumsum(-1) - probabilities
    ordered[(before >= share) & (before > 0) & (share < 1)] = -torch.inf
    return torch.empty_like(logits).scatter_(-1, places, ordered)


def _with_logprobs(token: int, logits: Tensor, num_top: int) -> Sample:
    logprobs = torch.log_softmax(logits.float(), -1)
    top = logprobs.topk(min(num_top, len(logprobs))) if num_top else None
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top else ()
    return Sample(token, float(logprobs[token]), tuple(pairs))


def _generator(chunk: Chunk, device: torch.device) -> torch.Generator:
    """The request's own random stream; without a seed it starts from the system's entropy."""
    request = chunk.request
    if request.sampler_state is None:
        generator = torch.Generator(device)
        if request.params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(request.params.seed)
        request.sampler_state = generator
    return cast(torch.Generator, request.sampler_state)
