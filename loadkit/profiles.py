"""Profiles: a runnable workload as one YAML file, every figure with its source.

A profile is read from a name of a bundled folder or from a path, checked by pydantic (unknown keys
refused), and can be changed by `--set a.b=c`. YAML is read safely, without aliases, up to 1 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadkit.core.errors import InputError
from loadkit.profile_errors import refusal

MAX_PROFILE_BYTES = 1 << 20
# ValueError: a scalar that looks like a date or a number and is none, such as 2024-99-99.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Distribution(_Part):
    """A declared distribution; `source` says where its figures come from."""

    distribution: Literal["constant", "geometric", "lognormal", "uniform"] = Field(
        description="constant: mean; geometric: mean >= 1; lognormal: median and sigma; uniform"
    )
    mean: float | None = Field(None, ge=0, description="mean (constant and geometric)")
    median: float | None = Field(None, gt=0, description="median (lognormal)")
    sigma: float | None = Field(None, ge=0, le=10, description="sigma of the logarithm (lognormal)")
    min: float = Field(0.0, ge=0, description="values below are raised to it")
    max: float = Field(le=1e9, description="values above are lowered to it")
    source: str = Field(min_length=1, description="where these figures come from")

    @model_validator(mode="after")
    def _complete(self) -> Distribution:
        needed = {"lognormal": ("median", "sigma"), "uniform": ()}.get(self.distribution, ("mean",))
        takes = ", ".join((*needed, "min", "max"))
        for name in ("mean", "median", "sigma"):
            if name not in needed and getattr(self, name) is not None:
                raise ValueError(
                    f"{self.distribution} takes {takes}; `{name}` would have no effect"
                )
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{self.distribution} needs `{name}`")
        if self.min > self.max:
            raise ValueError("min is above max")
        return self


class SystemPrompts(_Part):
    """System prompts that sessions share, with Zipf popularity: share of rank k ~ 1 / k**exponent."""

    count: int = Field(ge=1, le=10_000, description="how many distinct system prompts")
    exponent: float = Field(1.0, ge=0, le=4, description="Zipf exponent of their popularity")
    sentences: int = Field(8, ge=1, le=400, description="length of each, in sentences")
    source: str = Field(min_length=1, description="where these figures come from")


class ConversationTraffic(_Part):
    """Multi-turn, append-only: history is never rewritten; replies are appended as they come."""

    kind: Literal["conversation"]
    corpus: str = Field(description="name of a corpus")
    sessions: int = Field(ge=1, le=1_000_000, description="conversations in the run")
    system_prompts: SystemPrompts
    turns: Distribution
    think_s: Distribution
    message_sentences: Distribution
    repeat_share: float = Field(
        0.0, ge=0, le=1, description="share of sessions that ask one of a few common questions"
    )
    repeat_questions: int = Field(4, ge=1, description="how many common questions there are")
    repeat_source: str = Field("", description="where repeat_share comes from")
    replies: Literal["live", "recorded"] = Field("live", description="what is appended as reply")


class CorpusTraffic(_Part):
    """Randomized single-turn prompts drawn from a corpus without repetition."""

    kind: Literal["corpus"]
    corpus: str = Field(description="name of a corpus, or path of a JSONL file of prompts")
    requests: int = Field(ge=1, le=10_000_000, description="requests in the run")
    message_sentences: Distribution
    wrap: Literal["refuse", "allow"] = Field(
        "refuse", description="what to do when a finite corpus runs out (a wrap makes replay)"
    )


class ReplayTraffic(_Part):
    """Send logged or drawn prompts again: a log with its timestamps, or a few prompts repeated."""

    kind: Literal["replay"]
    log: str | None = Field(None, description="an OpenAI-style JSONL log; None: draw from `corpus`")
    corpus: str | None = Field(None, description="corpus to draw prompts from when there is no log")
    distinct_prompts: int | None = Field(
        None, ge=1, description="use only so many prompts (None: every row of the log)"
    )
    requests: int | None = Field(
        None, ge=1, description="requests in the run (None: each prompt once)"
    )
    message_sentences: Distribution | None = None
    speed: float = Field(1.0, gt=0, description="factor on the log's timestamps")
    wrap: Literal["refuse", "allow"] = Field(
        "refuse", description="sending a prompt again is a wrap: allow it only on purpose"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ReplayTraffic:
        if (self.log is None) == (self.corpus is None):
            raise ValueError("replay needs exactly one of `log` and `corpus`")
        return self


Traffic = Annotated[
    ConversationTraffic | CorpusTraffic | ReplayTraffic, Field(discriminator="kind")
]


class OpenLoop(_Part):
    """Sessions start at planned times whether or not earlier ones have finished."""

    loop: Literal["open"]
    process: Literal["poisson", "constant", "log"] = Field(
        "poisson", description="log: the log's own timestamps (replay only)"
    )
    rate_per_s: float | None = Field(None, ge=1e-6, le=1e6, description="session starts per second")

    @model_validator(mode="after")
    def _has_rate(self) -> OpenLoop:
        if self.process != "log" and self.rate_per_s is None:
            raise ValueError(f"{self.process} arrivals need `rate_per_s`")
        return self


class ClosedLoop(_Part):
    """A fixed number of users, each starting its next session when the last has ended."""

    loop: Literal["closed"]
    users: int = Field(ge=1, le=100_000, description="concurrent users")


class Retries(_Part):
    """What a client of this service does when it is turned away; each attempt is counted."""

    max_retries: int = Field(0, ge=0, le=10, description="further attempts after the first")
    statuses: tuple[int, ...] = Field((429, 503), description="answers that are tried again")
    backoff_s: float = Field(
        1.0, gt=0, le=600, description="first wait without a Retry-After; doubles each time"
    )
    max_wait_s: float = Field(60.0, gt=0, le=3600, description="a longer Retry-After ends it")


class Leaving(_Part):
    """Users who hang up in the middle of an answer: traffic, not a fault."""

    share: float = Field(0.0, ge=0, le=1, description="share of requests that are left")
    after_s: Distribution
    source: str = Field(min_length=1, description="where these figures come from")


class Request(_Part):
    """What every request asks for."""

    max_tokens: Distribution
    temperature: float = Field(0.0, ge=0, le=2)
    ignore_eos: bool = Field(False, description="ask the server to go on after the end token")
    exact_output: bool = Field(
        False, description="ask for exactly max_tokens of output, where the server can"
    )
    api: Literal["chat", "completions", "messages"] = Field(
        "chat", description="OpenAI chat, OpenAI completions, or Anthropic-style messages"
    )
    timeout_s: float = Field(
        120.0, gt=0, le=1e6, description="deadline of one request, send to last byte"
    )
    connect_timeout_s: float = Field(10.0, gt=0, le=1e6, description="deadline of connecting")
    first_token_timeout_s: float | None = Field(
        None, gt=0, le=1e6, description="deadline of the first token (None: timeout_s alone)"
    )
    idle_timeout_s: float | None = Field(
        None, gt=0, le=1e6, description="longest silence within an answer (None: no limit)"
    )
    retries: Retries = Retries()
    leaving: Leaving | None = None


class Slo(_Part):
    """Limits that a request must meet to count as goodput. None: no such limit."""

    ttft_s: float | None = Field(None, gt=0, description="time to first token")
    tpot_s: float | None = Field(None, gt=0, description="time per output token after the first")
    e2e_s: float | None = Field(None, gt=0, description="intended send to the end of the answer")
    share: float = Field(0.99, gt=0, le=1, description="share of requests that must meet them all")


class Expected(_Part):
    """Hit rate this kind of service is known to see, as a range for orientation (never used)."""

    hit_rate_low: float = Field(ge=0, le=1)
    hit_rate_high: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)


class Profile(_Part):
    """A runnable workload."""

    schema_: Literal["loadkit.profile/1"] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    summary: str = Field(min_length=1, description="one line for the list of profiles")
    seed: int = Field(1, ge=0, description="same seed, same bytes")
    traffic: Traffic
    arrivals: OpenLoop | ClosedLoop = Field(discriminator="loop")
    request: Request
    max_duration_s: float = Field(
        600.0, gt=0, le=1e7, description="the run is stopped after so long"
    )
    cache: Literal["as_is", "reset", "salt"] = Field(
        "as_is",
        description="what the server's cache holds at the start: whatever it does, nothing (a "
        "verified reset), or nothing of ours (a salt of this run, which is isolation, no reset)",
    )
    slo: Slo | None = None
    expected: Expected | None = None


class _NoAliasLoader(yaml.SafeLoader):
    """Safe loader that refuses aliases, so a few lines cannot grow into gigabytes."""

    def compose_node(self, parent: Any, index: int) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed", event.start_mark
            )
        return super().compose_node(parent, index)


def data_root(kind: str) -> Path:
    """Folder of bundled `profiles` or `corpora`: in the wheel, or beside the package."""
    packaged = Path(str(files("loadkit"))) / "_data" / kind
    return packaged if packaged.is_dir() else Path(str(files("loadkit"))).parent / kind


def names() -> list[str]:
    """Names of the bundled profiles."""
    return sorted(path.parent.name for path in data_root("profiles").glob("*/profile.yaml"))


def find(name_or_path: str) -> Path:
    """File of a profile given by bundled name, folder or path. InputError if there is none."""
    bundled = data_root("profiles") / name_or_path / "profile.yaml"
    for path in (Path(name_or_path), Path(name_or_path) / "profile.yaml", bundled):
        if path.is_file():
            return path
    raise InputError(
        "no such profile",
        where=name_or_path,
        remedy=f"give a path, or one of: {', '.join(names())}",
    )


def load_yaml(path: Path) -> Any:
    """Parse a small YAML file safely. InputError with file:line."""
    try:
        if path.stat().st_size > MAX_PROFILE_BYTES:
            raise InputError("larger than 1 MiB", where=path, remedy="profiles are small files")
        return yaml.load(path.read_text("utf-8"), Loader=_NoAliasLoader)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"not valid YAML: {error.problem}", where=f"{path}:{line}") from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", where=path) from error
    except _YAML_ERRORS as error:
        raise InputError(f"not valid YAML: {error}", where=path) from error


def apply_setting(data: dict[str, Any], setting: str) -> None:
    """Apply one `a.b=c` to raw profile data; the value is read as YAML."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"not of the form a.b=c: {setting!r}", where="--set")
    *parents, last = key.split(".")
    node = data
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise InputError(f"{name!r} in {key!r} is not a section", where="--set")
        node = child
    try:
        node[last] = yaml.load(text, Loader=_NoAliasLoader)
    except _YAML_ERRORS as error:
        raise InputError(f"not a YAML value: {text!r}", where=f"--set {key}") from error


def load(name_or_path: str, settings: Sequence[str] = ()) -> Profile:
    """Read, override and validate a profile. Every error names the cause, the key, and the file or
    the `--set` that it came by."""
    path = find(name_or_path)
    data = load_yaml(path)
    if not isinstance(data, dict):
        raise InputError("a profile is a mapping of keys", where=path)
    for setting in settings:
        apply_setting(data, setting)
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise refusal(error, Profile, path, settings) from error
