"""A working folder as the launcher leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work" / "journals").mkdir(parents=True)
    return tmp_path / "work"
