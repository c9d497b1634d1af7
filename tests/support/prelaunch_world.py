"""What the tests of prelaunch share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class World:
    """Folders to choose from, and what `run_profile` was asked to make and of which profile."""

    tokenizer: str
    production: Path
    staging: Path
    gives: list[Path] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.production / "sent.jsonl.gz"
