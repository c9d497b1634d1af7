"""Dataclasses of options, spread out for Typer and put together for the verb."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from loadkit.cli.options import grouped


@dataclass(frozen=True)
class Pair:
    left: int
    right: int = 2


def test_fields_are_options_and_the_verb_gets_the_group() -> None:
    got: list[tuple[str, Pair, bool]] = []

    @grouped
    def verb(name: str, pair: Pair, loud: bool = False) -> None:
        got.append((name, pair, loud))

    taken = inspect.signature(verb).parameters
    assert list(taken) == ["name", "left", "right", "loud"]
    assert taken["left"].default is inspect.Parameter.empty
    assert taken["right"].default == 2
    verb("a", left=1)
    verb(name="b", left=3, right=4, loud=True)
    assert got == [("a", Pair(1, 2), False), ("b", Pair(3, 4), True)]
