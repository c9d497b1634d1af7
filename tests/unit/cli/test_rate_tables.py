"""Numbers as a terminal shows them."""

from __future__ import annotations

import pytest

from loadkit.analysis.curve import CurvePoint
from loadkit.cli.rate_tables import BAR_WIDTH, console, count, curve_table, percent


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_400, "9,400"), (122_000, "122 k"), (73_604_194, "73.6 M"), (2 * 10**9, "2 G")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert count(number) == text


def test_an_unknown_rate_is_not_zero() -> None:
    assert (percent(None), percent(0.0), percent(0.3409)) == ("n/a", "0.0%", "34.1%")


def test_the_pieces_of_a_bar_add_up_to_its_width(capsys: pytest.CaptureFixture[str]) -> None:
    point = CurvePoint(10, 160, 0.98, 0.245, 0.245, 0.245, 0.245, 0.02, 0.0, 0.98)
    console().print(curve_table([point]))
    bar = capsys.readouterr().out.splitlines()[1].split()[-1]
    assert len(bar) == BAR_WIDTH
    assert (bar.count("▓"), bar.count("█"), bar.count("▒"), bar.count("·")) == (15, 7, 7, 1)
