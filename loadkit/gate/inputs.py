"""Files become what the gate judges by, or an error that names the field and what to do."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadkit.core.errors import InputError
from loadkit.gate.expected import Expected
from loadkit.gate.measured import SAME_RATE, Count, Measured, Rate

__all__ = ["SAME_RATE", "Count", "Expected", "Measured", "Rate"]  # read here, made elsewhere
__all__ += ["check_schema", "checked", "misfit", "read_json", "read_run"]

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
