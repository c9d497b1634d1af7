"""The line about the witnesses after runs of honest servers and of liars; verdicts: tests/validation."""

from __future__ import annotations

from pathlib import Path

import pytest
from liars import WITNESSES, lies, make_run, word_tokenizer, world


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return word_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("witnesses", WITNESSES)
def test_of_an_honest_server_one_line_says_that_the_witnesses_agree(
    tmp_path: Path, tokenizer: str, witnesses: str
) -> None:
    run = make_run(tmp_path / "run", world(3), lies()[0], tokenizer, witnesses)
    found, split = run["reconciliation"], run["split"]
    truth = sum(one.cached_tokens for one in world(3))
    assert found["says"].startswith("witnesses agree: ")
    assert found["says"].count(f" {truth:,} of ") == (3 if witnesses == "all three" else 2)
    assert (found["agrees"], split["hit"], split["sessions"]) == (True, truth, 30)
    assert split["source"] == ("predicted" if witnesses == "no usage" else "attributed")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("7 tokens more", "answers reported a part of a block cached"),
        ("constant share of each prompt", "more cached than could have been there"),
        ("strings", "a cached count that cannot be"),
        ("counters frozen", "the server's counters stand still"),
        ("counters of half of the tokens", "prompt tokens that were answered"),
        ("counters of another client too", "prompt tokens that nobody here sent"),
        ("counters restarted", "the server's counters started again during the run"),
        ("permuted between answers", "agree in sum, but not in detail"),
        ("capped at 64", "in mid-run the counters were"),
    ],
)
def test_the_line_says_by_how_much_they_differ_and_why(
    tmp_path: Path, tokenizer: str, name: str, says: str
) -> None:
    lie = next(one for one in lies() if one.name == name)
    line = make_run(tmp_path / "run", world(3), lie, tokenizer, "all three")["reconciliation"][
        "says"
    ]
    assert line.startswith("witnesses ")
    assert says in line
