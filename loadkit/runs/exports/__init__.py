"""A run folder in other tools' formats. Fields that loadkit cannot fill are left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from loadkit.runs.exports.aiperf import as_aiperf
from loadkit.runs.exports.measured import Measured, read_measured
from loadkit.runs.exports.vllm import as_vllm

FORMATS: dict[str, Callable[[Measured], dict[str, Any]]] = {"aiperf": as_aiperf, "vllm": as_vllm}


def export(folder: Path, name: str) -> Path:
    """Write `export-NAME.json` into a run folder; returns its path. KeyError: no such format."""
    data = FORMATS[name](read_measured(folder))
    path = folder / f"export-{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")
    return path


__all__ = ["FORMATS", "export"]
