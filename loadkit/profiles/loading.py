"""A profile by name or path, changed by settings, checked."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loadkit.core.errors import InputError
from loadkit.profiles.profile import Profile
from loadkit.profiles.refusal import refusal
from loadkit.profiles.yaml_file import data_root, load_yaml, yaml_value


def names() -> list[str]:
    """Names of the bundled profiles."""
    return sorted(path.parent.name for path in data_root("profiles").glob("*/profile.yaml"))


def find(name_or_path: str) -> Path:
    """File of a profile given by bundled name, folder or path. InputError if there is none."""
    bundled = data_root("profiles") / name_or_path / "profile.yaml"
    for path in (Path(name_or_path), Path(name_or_path) / "profile.yaml", bundled):
        if path.is_file():
            return path
    close = get_close_matches(name_or_path, names(), 1)
    raise InputError(
        "no such profile",
        where=name_or_path,
        remedy=f"did you mean {close[0]}?"
        if close
        else f"give a path, or one of: {', '.join(names())}",
    )


def apply_setting(data: dict[str, Any], setting: str) -> None:
    """Apply one `a.b=c` to raw profile data; the value is read as YAML. Lists go by number:
    `traffic.parts.0.weight=2`."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"not of the form a.b=c: {setting!r}", where="--set")
    *parents, last = key.split(".")
    node: Any = data
    for name in parents:
        node = _child(node, name, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = yaml_value(text, f"--set {key}")
    else:
        node[last] = yaml_value(text, f"--set {key}")


def _child(node: Any, name: str, key: str) -> Any:
    child = node[_index(node, name, key)] if isinstance(node, list) else node.setdefault(name, {})
    if not isinstance(child, dict | list):
        raise InputError(f"{name!r} in {key!r} is not a section", where="--set")
    return child


def _index(node: list[Any], name: str, key: str) -> int:
    if not name.isdecimal() or int(name) >= len(node):
        raise InputError(f"{name!r} in {key!r} is not one of 0 to {len(node) - 1}", where="--set")
    return int(name)


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


def schema() -> dict[str, Any]:
    """JSON schema of a profile file, for editors and other tools."""
    made = Profile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
