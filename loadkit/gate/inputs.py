"""What the gate reads of a run and of a forecast, checked: a rate above 1 is an error."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from loadkit.core.errors import InputError

# A figure beyond what a float counts exactly is damage, not a run.
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
# Parts and their sum come from the same integers; only the last bits may differ.
SAME_RATE = 1e-6


class RunReason(msgspec.Struct, frozen=True):
    code: str
    message: str


class Endpoint(msgspec.Struct, frozen=True):
    model: str | None
    tokenizer_fingerprint: str | None


class Counts(msgspec.Struct, frozen=True):
    """Requests of the measured phase."""

    scheduled: Count
    ok: Count


class MeasuredSplit(msgspec.Struct, frozen=True):
    """None throughout: the server reported no cached tokens, or nobody could split them."""

    source: str | None
    requests: Count
    sessions: Count
    prompt_tokens: Count | None
    hit_rate: Rate | None
    hit_rate_half_width: Seconds | None
    replay_same_session_rate: Rate | None
    replay_cross_session_rate: Rate | None
    continuation_rate: Rate | None
    shared_rate: Rate | None
    organic_hit_rate: Rate | None

    @property
    def replay_rate(self) -> float:
        """Both kinds of replay; 0 only if the split is known (check hit_rate first)."""
        return (self.replay_same_session_rate or 0.0) + (self.replay_cross_session_rate or 0.0)


class Witness(msgspec.Struct, frozen=True):
    cached_tokens: Count | None
    prompt_tokens: Count | None

    @property
    def rate(self) -> float | None:
        """Cached / prompt tokens; None without either."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens


class Reconciliation(msgspec.Struct, frozen=True):
    """usage_all_phases and prometheus are of the whole run, the rest of its measured phase."""

    usage: Witness
    usage_all_phases: Witness
    prometheus: Witness
    prediction: Witness
    prediction_infinite_tokens: Count | None
    prediction_capacity_blocks: Count | None
    prediction_overlap_tokens: Count | None
    unanswered_requests: Count

    @property
    def resident_tokens(self) -> tuple[int, int] | None:
        """Least and most that LRU of the server's size would have served: one request after another
        or with running requests holding their blocks. None: capacity or prediction not known."""
        served = self.prediction.cached_tokens
        if self.prediction_capacity_blocks is None or served is None:
            return None
        overlap = self.prediction_overlap_tokens
        other = served if overlap is None else overlap
        return min(served, other), max(served, other)


class Tokenizer(msgspec.Struct, frozen=True):
    fingerprint: str


class Delay(msgspec.Struct, frozen=True):
    """Seconds of actual minus intended send."""

    p99: float | None


class Measured(msgspec.Struct, frozen=True):
    """The parts of run.json that decide. Every one has to be there, null where it is not known: a
    file that lost one must not look like a run without that fault.

    left: requests that users left on purpose; the plan says so, and nobody waits for their answers.
    """

    schema: Literal["loadkit.run/1"]
    status: Literal["ok", "invalid"]
    reasons: list[RunReason]
    endpoint: Endpoint
    tokenizer: Tokenizer | None
    block_size: Count | None
    capacity_blocks: Count | None
    requests: Counts
    left: Count
    wraps: Count
    mutations: Count
    loop: str | None
    schedule_delay_s: Delay
    split: MeasuredSplit
    reconciliation: Reconciliation

    def __post_init__(self) -> None:
        if self.status == "ok" and self.reasons:
            raise ValueError(f"status ok, but {self.reasons[0].code} is a reason why it is not")

    @property
    def answered(self) -> int:
        return self.requests.ok


class ExpectedRate(msgspec.Struct, frozen=True):
    """low and high None with an estimate: a forecast that does not say how sure it is."""

    estimate: Rate | None = None
    low: Rate | None = None
    high: Rate | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        ends = (self.low, self.estimate, self.high)
        known = [end for end in ends if end is not None]
        if known != sorted(known):
            raise ValueError("the estimate lies outside its interval")


class Scenario(msgspec.Struct, frozen=True):
    """What production is described as; see `loadkit.forecast.model.Scenario`."""

    traffic: float
    block_size: Count
    capacity_blocks: Count | None
    replicas: Count
    routing: str
    ttl_s: float | None
    horizon_s: float | None


class LogFacts(msgspec.Struct, frozen=True):
    requests: Count
    sessions: Count
    prompt_tokens: Count
    tokenizer_fingerprint: str | None
    model: str | None
    duration_s: Seconds | None = None


class ExpectedSplit(msgspec.Struct, frozen=True):
    replay_same_session: Rate | None
    replay_cross_session: Rate | None
    continuation: Rate | None
    shared: Rate | None

    @property
    def replay_rate(self) -> float | None:
        known = (self.replay_same_session, self.replay_cross_session)
        return None if None in known else sum(part or 0.0 for part in known)

    @property
    def hit_rate(self) -> float | None:
        parts = (self.replay_rate, self.continuation, self.shared)
        return None if None in parts else sum(part or 0.0 for part in parts)


class Point(msgspec.Struct, frozen=True):
    capacity_blocks: Count
    hit_rate: Rate


class Expected(msgspec.Struct, frozen=True):
    """The parts of a forecast that decide; all have to be there, as in `Measured`."""

    schema: Literal["loadkit.forecast/1"]
    status: Literal["ok", "inconclusive"]
    hit_rate: ExpectedRate
    organic_hit_rate: ExpectedRate
    split: ExpectedSplit
    scenario: Scenario
    log: LogFacts
    curve: list[Point]
    needs: str | None

    def __post_init__(self) -> None:
        whole, parts = self.hit_rate.estimate, self.split.hit_rate
        if (whole is None) != (parts is None):
            raise ValueError("the hit rate or its split is missing")
        if whole is not None and abs(whole - (parts or 0.0)) > SAME_RATE:
            raise ValueError(f"the hit rate is {whole:.4f}, the parts of its split are {parts:.4f}")

    @property
    def sessions(self) -> float | None:
        """Sessions that the rate is of: the log's, at the traffic and for the time asked about; None
        for a horizon of a log without times."""
        asked, log = self.scenario, self.log
        if asked.horizon_s is None:
            return log.sessions * asked.traffic
        if not log.duration_s:
            return None
        return log.sessions * asked.traffic * asked.horizon_s / log.duration_s


Part = TypeVar("Part")
_SCHEMAS: dict[type, str] = {Measured: "loadkit.run/1", Expected: "loadkit.forecast/1"}


def checked(data: Any, kind: type[Part], where: str | Path) -> Part:
    """Convert a dict to one of the types above. InputError names the key that does not fit."""
    check_schema(data, _SCHEMAS[kind], where)
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise misfit(error, data, where) from error


_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$\.?(.*)`)?")
_AGAIN = {
    "loadkit.run/1": "run again: `loadkit run PROFILE -o NEW_DIR`",
    "loadkit.forecast/1": "make the forecast again: `loadkit forecast LOG -o FILE`",
    "loadkit.gate/1": "judge again: `loadkit gate -o FILE`",
}


def misfit(error: Exception, data: dict[str, Any], where: str | Path) -> InputError:
    """The error for a file with a field that does not fit, or without one that has to be there: an
    older loadkit did not write it yet, or the file is damaged."""
    missing, writer = _MISSING.match(str(error)), _writer(data) or "not named"
    what = f"damaged, or of another loadkit (version {writer}): {error}"
    if missing:
        field = ".".join(filter(None, missing.group(2, 1)))
        what = f"lacks {field}: an older loadkit wrote it (version {writer}), or it is damaged"
    return InputError(what, where=where, remedy=_AGAIN.get(str(data.get("schema"))))


def check_schema(data: Any, schema: str, where: str | Path) -> None:
    """InputError unless `data` is an object of exactly that schema; says which loadkit wrote it."""
    found = data.get("schema") if isinstance(data, dict) else None
    if found == schema:
        return
    name, _, number = schema.partition("/")
    theirs, _, version = str(found).partition("/")
    if theirs == name and version.isdigit():
        newer = int(version) > int(number)
        remedy = "update this one" if newer else "make it again with this one"
        what = f"{found}, written by loadkit {_writer(data) or '?'}; this loadkit reads {schema}"
        raise InputError(what, where=where, remedy=remedy)
    raise InputError(
        f"not of schema {schema}" + (f" but of {found}" if found else ""),
        where=where,
        remedy="name what `loadkit run -o`, `loadkit forecast -o` or `loadkit gate -o` wrote",
    )


_OF_A_LOG = "make the forecast of a log with `loadkit forecast LOG -o FILE.json`"


def _writer(data: Any) -> str | None:
    """The version of loadkit that wrote it, if it says so."""
    versions = data.get("versions") if isinstance(data, dict) else None
    return versions.get("loadkit-llm") if isinstance(versions, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file. InputError if it is not there, is no object, or holds a NaN or a
    number without end."""
    try:
        data = json.loads(
            path.read_text("utf-8"), parse_constant=_no_number, parse_float=_finite_number
        )
    except OSError as error:
        remedy = "is it the right path?"
        raise InputError(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            what, remedy = "holds JSON after JSON, as a request log does", _OF_A_LOG
            raise InputError(what, where=path, remedy=remedy) from error
        remedy = "the file is damaged: make it again"
        raise InputError(f"not JSON: {error}", where=path, remedy=remedy) from error
    if not isinstance(data, dict):
        raise InputError("not a JSON object", where=path)
    return data


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite_number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large")
    return value


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. InputError if `folder` is none, or of another version."""
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            "no run.json here", where=folder, remedy="name a folder that `loadkit run -o` wrote"
        )
    data = read_json(path)
    check_schema(data, "loadkit.run/1", path)
    return data
