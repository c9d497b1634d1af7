"""Every schema that the code names stands in the contract's or the decision's list."""

from __future__ import annotations

import re
from pathlib import Path

from contract_names import names_under

ROOT = Path(__file__).parents[2]
OF_THE_CONTRACT = {f"loadkit.{name}/1" for name in ("analysis", "forecast", "gate", "run")}


def test_every_schema_of_the_code_is_listed_and_no_other() -> None:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "loadkit").rglob("*.py"))
    used = set(re.findall(r"\bloadkit\.[a-z-]+/\d+", text))
    listed = {name for name in names_under("Other files") if re.fullmatch(r"loadkit\..*/\d+", name)}
    assert used - OF_THE_CONTRACT == listed
