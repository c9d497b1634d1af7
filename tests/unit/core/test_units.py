"""Quantities as people type them."""

from __future__ import annotations

import pytest

from loadkit.core.errors import InputError
from loadkit.core.units import parse_capacities, parse_capacity, parse_traffic


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("1000", 1000),
        ("30k", 30_000),
        ("1.5M", 1_500_000),
        ("3Mtok", 187_500),
        ("40tok", 2),
        ("inf", None),
    ],
)
def test_capacities_are_blocks_or_tokens(text: str, blocks: int | None) -> None:
    assert parse_capacity(text, block_size=16) == blocks


def test_several_capacities_keep_their_order() -> None:
    assert parse_capacities("30k, 1000,inf,32tok", 16) == [30_000, 1000, None, 2]


@pytest.mark.parametrize(
    "text", ["", "x", "0", "-5", "15tok", "1e5", "nan", "30K", "5,", "1k k", "9" * 400]
)
def test_capacities_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--capacity"):
        parse_capacities(text, 16)


@pytest.mark.parametrize("text", ["40GiB", "1.5 TB", "512MiB"])
def test_capacities_in_bytes_are_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InputError, match="in bytes"):
        parse_capacity(text, 16)


def test_traffic_is_a_multiple() -> None:
    assert [parse_traffic(text) for text in ("1x", "20", " 0.5x ")] == [1.0, 20.0, 0.5]
    assert parse_traffic(f"{276 / 70.34}x") == 276 / 70.34  # as Python prints a ratio


@pytest.mark.parametrize("text", ["0x", "", "x", "-1x", "nan", "inf", "1e3x", "9" * 400])
def test_traffic_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--traffic"):
        parse_traffic(text)
