"""The names that our files may hold, read from the decision that lists them."""

from __future__ import annotations

import re
from pathlib import Path

DECISION = Path(__file__).parents[2] / "docs/decisions/006-names-beyond-the-contract.md"


def names_under(*headings: str) -> set[str]:
    """The names in the sections whose headings begin so: a table's first column, or a list."""
    found: set[str] = set()
    for section in DECISION.read_text("utf-8").split("\n## ")[1:]:
        if section.startswith(headings):
            rows = re.findall(r"^\|([^|]+)\|", section, re.MULTILINE)
            found |= set(re.findall(r"`([^`]+)`", " ".join(rows) or section.split("\n", 1)[1]))
    return found


def documented(run: dict[str, object]) -> None:
    """AssertionError for a name of run.json that is not listed, or is listed and not there."""
    assert set(run) == names_under("run.json")
    reconciliation = run["reconciliation"]
    assert isinstance(reconciliation, dict)
    assert set(reconciliation) == names_under("`reconciliation`")
