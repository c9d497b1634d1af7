"""What the `loadkit` fixture of tests/conftest.py answers: a command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Answer(NamedTuple):
    """A command's exit code and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]
