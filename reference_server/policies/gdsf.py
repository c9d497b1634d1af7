"""Greedy dual size frequency (Cherkasova 1998), for blocks of one size."""

from __future__ import annotations

from reference_server.policies.base import Policy, Scored

# Context length at which attention costs as much as all else: parameters / (2 x width x layers) of
# Llama-3-8B, 8.03e9 / (2 x 4096 x 32). Other 7-8B models lie within a factor of two.
ATTENTION_EQUALS_REST_TOKENS = 30_600


class GDSF(Policy):
    """Uses x cost + clock. Computing a block costs more the deeper it lies, since attention reads
    all tokens before it."""

    name, ages = "gdsf", True

    def score(self, node: Scored, clock: float) -> float:
        cost = 1 + node.depth * self.block_size / ATTENTION_EQUALS_REST_TOKENS
        return clock + node.num_uses * cost
