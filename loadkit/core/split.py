"""The split of prompt tokens by cause: the one set of words used in code, JSON, metrics, reports."""

from __future__ import annotations

import msgspec

CAUSES = ("replay_same_session", "replay_cross_session", "continuation", "shared", "miss")


class Split(msgspec.Struct, frozen=True):
    """Prompt tokens by cause. All fields are token counts; `miss` is the rest, so they sum to
    `prompt_tokens` by construction.

    - replay_same_session: hit tokens of a prompt that this session had sent before, identically.
    - replay_cross_session: hit tokens of a prompt that only other sessions had sent before.
    - continuation: hit blocks that this session itself had in an earlier request.
    - shared: hit blocks that only other sessions had put there.
    - miss_capacity: tokens of blocks seen before and evicted. miss_compulsory: the rest.
    """

    prompt_tokens: int
    replay_same_session: int = 0
    replay_cross_session: int = 0
    continuation: int = 0
    shared: int = 0
    miss_capacity: int = 0

    @property
    def replay(self) -> int:
        return self.replay_same_session + self.replay_cross_session

    @property
    def genuine(self) -> int:
        """Reuse that production has too: continuation + shared."""
        return self.continuation + self.shared

    @property
    def hit(self) -> int:
        return self.replay + self.genuine

    @property
    def miss(self) -> int:
        return self.prompt_tokens - self.hit

    @property
    def miss_compulsory(self) -> int:
        return self.miss - self.miss_capacity

    def __add__(self, other: Split) -> Split:
        return Split(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))

    def rate(self, part: str) -> float | None:
        """Token-weighted share of a part (a field or property name), 0..1; None without tokens."""
        return getattr(self, part) / self.prompt_tokens if self.prompt_tokens else None


def attribute(
    cached_tokens: int, *, prompt_tokens: int, own_prefix_tokens: int, replay: str | None
) -> Split:
    """Split a server's cached-token count by cause.

    A session's own earlier blocks always form a prefix of its chain (a chained hash seen by the
    session means all its ancestors were too), so the first `own_prefix_tokens` cached tokens are
    continuation and the rest is shared. `replay` is "same_session", "cross_session" or None (the
    prompt is new); all hit tokens of a replayed prompt are replay.
    """
    if replay == "same_session":
        return Split(prompt_tokens, replay_same_session=cached_tokens)
    if replay == "cross_session":
        return Split(prompt_tokens, replay_cross_session=cached_tokens)
    own = min(cached_tokens, own_prefix_tokens)
    return Split(prompt_tokens, continuation=own, shared=cached_tokens - own)
