"""What the gate reads of a run and of a forecast, checked: a rate above 1 is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from loadkit.core.errors import InputError

# 30 requests and 10 sessions: below, the spread between sessions is itself unknown (the error of a
# standard deviation from n values is about 1 / sqrt(2 (n - 1)): 24% at 10), so is any half width.
MIN_REQUESTS = 30
MIN_SESSIONS = 10

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class RunReason(msgspec.Struct, frozen=True):
    code: str
    message: str


class Endpoint(msgspec.Struct, frozen=True):
    tokenizer_fingerprint: str | None = None


class MeasuredSplit(msgspec.Struct, frozen=True):
    """None throughout: the server reported no cached tokens, or nobody could split them."""

    source: str | None = None
    requests: Count = 0
    sessions: Count = 0
    prompt_tokens: Count | None = None
    hit_rate: Rate | None = None
    hit_rate_half_width: float | None = None
    replay_same_session_rate: Rate | None = None
    replay_cross_session_rate: Rate | None = None
    continuation_rate: Rate | None = None
    shared_rate: Rate | None = None

    @property
    def replay_rate(self) -> float:
        """Both kinds of replay; 0 only if the split is known (check hit_rate first)."""
        return (self.replay_same_session_rate or 0.0) + (self.replay_cross_session_rate or 0.0)


class Witness(msgspec.Struct, frozen=True):
    cached_tokens: Count | None = None
    prompt_tokens: Count | None = None


class Reconciliation(msgspec.Struct, frozen=True):
    usage: Witness = Witness()
    prediction: Witness = Witness()
    prediction_infinite_tokens: Count | None = None
    prediction_capacity_blocks: Count | None = None
    prediction_overlap_tokens: Count | None = None
    unanswered_requests: Count = 0


class Tokenizer(msgspec.Struct, frozen=True):
    fingerprint: str


class Measured(msgspec.Struct, frozen=True):
    """The parts of run.json that decide."""

    schema: Literal["loadkit.run/1"]
    status: Literal["ok", "invalid"]
    requests: dict[str, Count]
    split: MeasuredSplit
    reconciliation: Reconciliation
    reasons: list[RunReason] = []
    endpoint: Endpoint = Endpoint()
    tokenizer: Tokenizer | None = None
    block_size: int | None = None
    capacity_blocks: int | None = None
    wraps: Count = 0
    mutations: Count = 0

    @property
    def is_large_enough(self) -> bool:
        """Whether anything can be said about how far chance moves the rate."""
        answered = self.requests.get("ok", 0)
        return answered >= MIN_REQUESTS and self.split.sessions >= MIN_SESSIONS


class ExpectedRate(msgspec.Struct, frozen=True):
    """low and high None: the estimate is exact."""

    estimate: Rate | None = None
    low: Rate | None = None
    high: Rate | None = None


class Scenario(msgspec.Struct, frozen=True):
    block_size: int | None = None
    capacity_blocks: int | None = None


class LogFacts(msgspec.Struct, frozen=True):
    requests: Count | None = None
    sessions: Count | None = None
    tokenizer_fingerprint: str | None = None


class ExpectedSplit(msgspec.Struct, frozen=True):
    replay_same_session: Rate | None = None
    replay_cross_session: Rate | None = None

    @property
    def replay_rate(self) -> float | None:
        known = (self.replay_same_session, self.replay_cross_session)
        return None if None in known else sum(part or 0.0 for part in known)


class Expected(msgspec.Struct, frozen=True):
    """The parts of a forecast that decide."""

    schema: Literal["loadkit.forecast/1"]
    status: Literal["ok", "inconclusive"]
    hit_rate: ExpectedRate = ExpectedRate()
    split: ExpectedSplit | None = None
    scenario: Scenario = Scenario()
    log: LogFacts = LogFacts()
    needs: str | None = None


Part = TypeVar("Part")


def checked(data: dict[str, Any], kind: type[Part], where: str) -> Part:
    """Convert a dict to one of the types above. InputError names the key that does not fit."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise InputError(
            f"not what the gate can read: {error}",
            where=where,
            remedy="give a run folder of `loadkit run` and a file of `loadkit forecast --json`",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file. InputError if it is not there or is no object."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=path) from error
    if not isinstance(data, dict):
        raise InputError("not a JSON object", where=path)
    return data


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. InputError if `folder` is none."""
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            "no run.json here", where=folder, remedy="name a folder that `loadkit run -o` wrote"
        )
    return read_json(path)
