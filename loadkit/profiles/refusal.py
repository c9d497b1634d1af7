"""What is wrong with a profile, in a person's words: pydantic's errors, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from loadkit.core.errors import InputError

_WORDS = {
    "missing": "missing",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "expected small letters, digits and hyphens",
    "model_type": "expected a section with keys of its own",
    "model_attributes_type": "expected a section with keys of its own",
    "dict_type": "expected a section with keys of its own",
    "literal_error": "expected {expected}",
    "union_tag_invalid": "expected one of {expected_tags}",
    "union_tag_not_found": "missing",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}
_TAGS = ("kind", "loop")  # fields that tell apart the members of a union
_MAX_SHOWN = 60
_MAX_KEYS = 3


def refusal(
    error: ValidationError, model: type[BaseModel], path: Path, settings: Sequence[str]
) -> InputError:
    """The first of pydantic's errors with its place: the `--set` that brought it, else the file.
    Of the others, their keys."""
    first, *others = error.errors()
    key = _key(first, model)
    what, remedy = _message(first) + _also([_key(other, model) for other in others]), None
    if first["type"] == "extra_forbidden":
        what, remedy = "unknown key", _known(key, list(_fields_at(first["loc"], model)))
    setting = _setting_of(key, settings)
    if setting is None:
        return InputError(f"{key}: {what}", where=path, remedy=remedy)
    shown = what if setting == key else f"{key}: {what}"
    return InputError(shown, where=f"--set {setting}", remedy=remedy)


def _also(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
    return f"; also wrong: {', '.join(keys[:_MAX_KEYS])}{more}"


def _setting_of(key: str, settings: Sequence[str]) -> str | None:
    """The last `--set` of this key, of a part of it, or of what it is a part of."""
    for setting in reversed(settings):
        name = setting.partition("=")[0]
        if name == key or name.startswith(f"{key}.") or key.startswith(f"{name}."):
            return name
    return None


def _key(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    """A key as it stands in the file: without the kind that pydantic puts after a union's name.

    An error about several sections says itself which key it is about.
    """
    parts = [str(part) for part in _without_tags(error["loc"], model)]
    if error["type"].startswith("union_tag"):
        parts.append(error["ctx"]["discriminator"].strip("'"))
    if not parts and error["type"] == "value_error":
        return str(error["ctx"]["error"]).partition(":")[0]
    return ".".join(parts) or "profile"


def _without_tags(place: Sequence[int | str], model: type[BaseModel]) -> Iterator[int | str]:
    models = [model]
    for part in place:
        tagged = [one for one in models if part in _tags(one)]
        if not tagged:
            yield part
        models = tagged or _inside(models, part)


def _inside(models: Sequence[type[BaseModel]], part: int | str) -> list[type[BaseModel]]:
    """The sections that the field `part` of some models may hold; a list's number stays there."""
    if isinstance(part, int):
        return list(models)
    return [
        inner
        for one in models
        if part in one.model_fields
        for inner in _models_in(one.model_fields[part].annotation)
    ]


def _message(error: Mapping[str, Any]) -> str:
    words = _WORDS.get(error["type"])
    if error["type"] == "value_error" and not error["loc"]:
        return str(error["ctx"]["error"]).partition(": ")[2]
    text = error["msg"] if words is None else words.format(**error.get("ctx", {}))
    given = error["ctx"]["tag"] if error["type"] == "union_tag_invalid" else error.get("input")
    if error["type"] in ("missing", "value_error", "union_tag_not_found"):
        return str(text)
    return f"{text}, got {_shown(given)}"


def _shown(value: Any) -> str:
    """A value in a few characters; what a section holds is not repeated."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a section" if isinstance(value, dict) else "a list"
    return f"{value!r:.{_MAX_SHOWN}}"


def _known(key: str, names: list[str]) -> str | None:
    close = get_close_matches(key.rpartition(".")[2], names, 1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known here: {', '.join(names)}" if names else None


def _fields_at(place: Sequence[int | str], model: type[BaseModel]) -> Iterator[str]:
    """Keys that a profile may have where `place` is."""
    models = [model]
    for part in place[:-1]:
        models = [one for one in models if part in _tags(one)] or _inside(models, part)
    for one in models:
        yield from (field.alias or name for name, field in one.model_fields.items())


def _tags(model: type[BaseModel]) -> list[str]:
    """Values of the field that tells the members of a union apart."""
    fields = [model.model_fields[name] for name in _TAGS if name in model.model_fields]
    return [tag for field in fields for tag in get_args(field.annotation)]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
