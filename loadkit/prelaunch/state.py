"""What a prelaunch folder was made from, so that another question never reuses its stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadkit.core.errors import InputError
from loadkit.gate import read_json
from loadkit.gate.baseline import differing
from loadkit.gate.inputs import check_schema
from loadkit.report import write_whole

SCHEMA = "loadkit.prelaunch/1"
FILE = "prelaunch.json"


def open_folder(out: Path, inputs: dict[str, Any], *, is_finished: Callable[[], bool]) -> None:
    """Make the folder, or take up the one that was made from the same inputs, or in which nothing
    was finished (as after a wrong address). is_finished: whether a run is there to be kept; until
    then its cache may be treated otherwise (--reset after a run that failed), as the forecast does
    not depend on it.

    InputError for a folder that is something else, or was made from other inputs (named).
    """
    path = out / FILE
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError("already exists", where=out, remedy="name a new folder")
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, inputs)
        return
    found = read_json(path)
    check_schema(found, SCHEMA, path)
    before = found.get("inputs")
    keys = differing(inputs, before) if isinstance(before, dict) else ["inputs"]
    is_empty = {entry.name for entry in out.iterdir()} <= {FILE, "server.log"}
    if keys and (is_empty or (keys == ["profile.cache"] and not is_finished())):
        _write(path, inputs)
    elif keys:
        what = f"was made from other inputs: {', '.join(keys[:6])} changed"
        raise InputError(what, where=out, remedy="name a new folder, or ask the same again")


def _write(path: Path, inputs: dict[str, Any]) -> None:
    write_whole(path, json.dumps({"schema": SCHEMA, "inputs": inputs}, indent=2) + "\n")


def digest(path: Path) -> str:
    """sha256 of a file. InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
