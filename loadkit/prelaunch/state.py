"""What a prelaunch folder was made from and holds: stages are kept, but not another question's."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from loadkit.core.errors import InputError
from loadkit.gate import read_json
from loadkit.gate.baseline import differing
from loadkit.gate.inputs import check_schema, read_run
from loadkit.gate.verdict import counted
from loadkit.report import write_whole

_WARM = "The server may still hold its prompts, and be called warm: start it again first, or use --reset"
T = TypeVar("T")
SCHEMA = "loadkit.prelaunch/1"
FILE = "prelaunch.json"


def open_folder(out: Path, inputs: dict[str, Any]) -> None:
    """Make the folder, or take up the one that was made from the same inputs, or in which nothing
    was finished (as after a wrong address). Until a run is there to be kept, its cache may be
    treated otherwise (--reset after a run that failed): the forecast does not depend on it.

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
    if keys and (is_empty or (keys == ["profile.cache"] and not is_finished(out / "run"))):
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


def is_finished(folder: Path) -> bool:
    """Whether a valid run is there. A folder is renamed into place whole, so it is whole."""
    return folder.exists() and kept(read_run, folder).get("status") == "ok"


def kept(read: Callable[[Path], T], path: Path) -> T:
    """What an earlier call left there, or how to go on without it."""
    try:
        return read(path)
    except InputError as error:
        remedy = f"remove {path}, and it is made again"
        raise InputError(error.what, where=error.where, remedy=remedy) from error


def age(path: Path) -> str:
    """`3 minutes ago`: a run that was kept says nothing about what the server is now."""
    seconds = max(0, round(time.time() - path.stat().st_mtime))
    for size, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{counted(seconds // size, noun)} ago"
    return "just before"


def set_aside(folder: Path, say: Callable[[str], None]) -> None:
    """A run that is not valid is kept under another name, and made again."""
    if any(folder.parent.glob(f".{folder.name}.work-*")):
        say(f"An earlier run was killed; what is left of it stays in {folder.parent}")
        say(_WARM)
    if not folder.exists():
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.invalid-{number}")).exists():
        number += 1
    folder.rename(aside)
    say(f"An earlier run is not valid; kept as {aside}")
    say(_WARM)
