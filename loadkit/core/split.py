"""The split of prompt tokens by cause: the one set of words used in code, JSON, metrics, reports."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from loadkit.core.errors import InternalError

CAUSES = ("replay_same_session", "replay_cross_session", "continuation", "shared", "miss")


class Split(msgspec.Struct, frozen=True):
    """Prompt tokens by cause. All fields are token counts; `miss` is the rest, so they sum to
    `prompt_tokens` by construction.

    - replay_same_session: hit tokens of a prompt that this session had sent before, identically.
    - replay_cross_session: hit tokens of a prompt that only other sessions had sent before.
    - continuation: hit blocks that this session itself had in an earlier request.
    - shared: hit blocks that only other sessions had put there.
    - miss_capacity: tokens of blocks seen before and evicted, as far as the cache's known size
      explains that.
    - miss_unexplained: tokens that could have hit and did not, for a reason that is not known.
    - miss_compulsory: the rest, never seen before.

    InternalError for a negative part: hits and misses beyond the prompt's tokens are impossible.
    """

    prompt_tokens: int
    replay_same_session: int = 0
    replay_cross_session: int = 0
    continuation: int = 0
    shared: int = 0
    miss_capacity: int = 0
    miss_unexplained: int = 0

    def __post_init__(self) -> None:
        least = min(
            self.prompt_tokens, self.replay_same_session, self.replay_cross_session,
            self.continuation, self.shared, self.miss_capacity, self.miss_unexplained,
            self.miss_compulsory,
        )  # fmt: skip
        if least < 0:
            raise InternalError(f"a part of {least} tokens in {self}")

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
        return self.miss - self.miss_capacity - self.miss_unexplained

    def __add__(self, other: Split) -> Split:
        return Split(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))

    def rate(self, part: str) -> float | None:
        """Token-weighted share of a part (a field or property name), 0..1; None without tokens."""
        return getattr(self, part) / self.prompt_tokens if self.prompt_tokens else None


# Shares may be off by the last bits of a float, no more.
_ROUNDING = 1e-9


def check_shares(where: str, shares: Mapping[str, float | None]) -> None:
    """InternalError for a share outside 0..1 (nan too); None is unknown, and fine."""
    for name, share in shares.items():
        if share is not None and not -_ROUNDING <= share <= 1 + _ROUNDING:
            raise InternalError(f"{name} of {where} is {share:g}, outside 0..1")


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
