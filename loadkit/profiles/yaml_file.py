"""Small YAML files, read safely: no aliases, no objects, at most 1 MiB."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from loadkit.core.errors import InputError

MAX_PROFILE_BYTES = 1 << 20
# ValueError: a scalar that looks like a date or a number and is none, such as 2024-99-99.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


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


def yaml_value(text: str, where: str) -> Any:
    """One value given on the command line. InputError if it is not YAML."""
    try:
        value = yaml.load(text, Loader=_NoAliasLoader)
    except _YAML_ERRORS as error:
        raise InputError(f"not a YAML value: {text!r}", where=where) from error
    for key in value if isinstance(value, dict) else ():
        if value[key] is None and ":" in str(key):  # {a:1}, which YAML takes as one key
            remedy = "YAML wants a space after the colon, as in {kind: replay}"
            raise InputError(f"{key!r} is one word", where=where, remedy=remedy)
    return value
