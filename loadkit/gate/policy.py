"""Thresholds and objectives of one verdict: gate.yaml, else the profile that was run, else ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from loadkit.core.errors import InputError
from loadkit.profiles import Slo, load_yaml
from loadkit.thresholds import Thresholds

DEFAULT, DEFAULTS = "loadkit's defaults", Thresholds()


@dataclass(frozen=True, slots=True)
class Policy:
    """slo: None when nobody named an objective. source: where the figures come from, in words."""

    thresholds: Thresholds = DEFAULTS
    slo: Slo | None = None
    source: str = DEFAULT


class _GateFile(Thresholds):
    """gate.yaml: the thresholds at its top level, and objectives."""

    schema_: Literal["loadkit.gate-policy/1"] = Field(alias="schema")
    slo: Slo | None = None


def read_policy(path: Path) -> Policy:
    """gate.yaml. InputError with the key that does not fit; what it leaves out is the default."""
    found = _validated(_GateFile, load_yaml(path), str(path))
    names = Thresholds.model_fields
    return Policy(
        Thresholds(**{name: getattr(found, name) for name in names}), found.slo, str(path)
    )


def policy_of(run: Mapping[str, Any], file: Path | None = None) -> Policy:
    """The file's policy, with the profile's objectives where the file names none."""
    profile = run.get("profile")
    profile = profile if isinstance(profile, dict) else {}
    theirs = (
        _validated(Slo, profile["slo"], "run.json: profile.slo") if profile.get("slo") else None
    )
    if file is not None:
        policy = read_policy(file)
        return Policy(policy.thresholds, policy.slo or theirs, policy.source)
    if profile.get("gate"):
        limits = _validated(Thresholds, profile["gate"], "run.json: profile.gate")
        return Policy(limits, theirs, f"the profile {profile.get('name')}")
    return Policy(slo=theirs)


def _validated(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError("not a mapping of keys", where=where)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        takes = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        raise InputError(f"{key}: {first['msg']}", where=where, remedy=f"keys: {takes}") from error
