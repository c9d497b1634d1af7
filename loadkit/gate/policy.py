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


def loosened(limits: Thresholds) -> list[str]:
    """`allowance 0.1 (ours 0.02)` for every limit that lets more pass than the default does."""
    found = []
    for name, ours in DEFAULTS:
        if name == "regression":  # what a baseline may lose is everyone's own choice
            continue
        theirs = getattr(limits, name)
        strict = name.startswith("min_")
        if theirs is None or ours is None or theirs == ours:
            continue
        if name != "require_fingerprints" and (theirs < ours) is strict:
            found.append(f"{name} {theirs:g} (ours {ours:g})")
    return found


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
