"""Text as it streams: whole characters, stop strings, nothing lost."""

from __future__ import annotations

import random

import pytest
from tiny_model import make_tokenizer

from loadkit.core.tokenizer import Tokenizer
from reference_server.detokenizer import Detokenizer, StopMatcher


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(make_tokenizer(), "tiny")


def stream(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer.decode)
    return [*(detokenizer.add(i) for i in ids), detokenizer.flush()]


@pytest.mark.parametrize(
    "text", ["hello world", "naïve 日本語 👩‍🚀 end", "  two  spaces ", "\n\n", "é"]
)
def test_the_deltas_join_to_the_text_and_hold_no_half_character(
    tokenizer: Tokenizer, text: str
) -> None:
    deltas = stream(tokenizer, tokenizer.encode(text))
    assert "".join(deltas) == text
    assert not any("\ufffd" in delta for delta in deltas)


def test_a_character_cut_off_at_the_end_shows_as_a_replacement(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab日")[:-1]
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == "ab\ufffd"


def test_any_token_sequence_streams_to_its_decoded_text(tokenizer: Tokenizer) -> None:
    """Random ids are mostly broken UTF-8."""
    rng = random.Random(3)
    for _ in range(300):
        ids = [rng.randrange(2, 340) for _ in range(rng.randint(1, 30))]
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("deltas", "stops", "shown", "stopped"),
    [
        (["ab", "cd"], [], "abcd", False),
        (["ab", "cd"], ["bc"], "a", True),
        (["ab", "ce"], ["bcd"], "abce", False),
        (["aab", "x"], ["ab", "aa"], "", True),
        (["x#", "#", "#y"], ["###"], "x", True),
        (["a", "\n", "b\n\n"], ["\n\n"], "a\nb", True),
        (["tail##"], ["###"], "tail##", False),
    ],
)
def test_text_ends_before_the_first_stop_string(
    deltas: list[str], stops: list[str], shown: str, stopped: bool
) -> None:
    matcher = StopMatcher(stops)
    text = "".join([*(matcher.add(delta) for delta in deltas), matcher.flush()])
    assert (text, matcher.stopped) == (shown, stopped)


def test_what_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(["END"])
    assert [matcher.add(part) for part in ("to the E", "N", "X")] == ["to the ", "", "ENX"]
