"""Keep what many different prompts share."""

from __future__ import annotations

from reference_server.diversity_index import DiversityIndex
from reference_server.policies.base import Policy, Scored


class Diversity(Policy):
    """Distinct prompts x diversity index + clock.

    A replayed prompt counts once however often it is sent, and in a stream of replays the index
    falls, so that recency decides.
    """

    name, ages = "diversity", True

    def __init__(self, num_blocks: int = 1, block_size: int = 1):
        super().__init__(num_blocks, block_size)
        self.index = DiversityIndex()

    def score(self, node: Scored, clock: float) -> float:
        return clock + (self.index.value or 0.0) * node.num_prompts

    def arrived(self, *, is_replay: bool) -> None:
        self.index.add(is_replay=is_replay)
