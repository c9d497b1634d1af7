"""Liars x verdicts: the table of docs/ci.md, made anew. Nobody who misreports a cache passes."""

from __future__ import annotations

from pathlib import Path

from liars import WITNESSES, table, word_tokenizer

CI = Path(__file__).parents[2] / "docs" / "ci.md"


def test_no_liar_passes_and_the_published_table_is_the_one_that_is_measured(
    tmp_path: Path,
) -> None:
    made = table(tmp_path, word_tokenizer(tmp_path / "tokenizer"))
    honest, *others = made.splitlines()[2:]
    assert honest.count("PASS") == len(WITNESSES)
    assert not [line for line in others if "PASS" in line]
    assert made in CI.read_text("utf-8")
