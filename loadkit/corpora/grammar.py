"""Grammars: symbols with lines, slots in the lines expanded at random. Data, never code.

`{symbol}` is one of that symbol's lines, `{int:a-b}` a whole number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from loadkit.core.errors import InputError

MAX_DEPTH = 12
_SLOT = re.compile(r"\{(?:int:(\d+)-(\d+)|([a-z_]+))\}")

# A text, the lines of a symbol without slots, another symbol (a tuple of one), a number's bounds.
_Piece = str | list[str] | tuple[str] | tuple[int, int]


class Grammar:
    """Lines of each symbol, cut at their slots once, since plans expand them by the million."""

    def __init__(self, lines: Mapping[str, Sequence[str]], name: str):
        self.name = name
        plain = {
            symbol: list(texts)
            for symbol, texts in lines.items()
            if not any(map(_SLOT.search, texts))
        }
        self._lines = {
            symbol: [_pieces(line, plain) for line in texts] for symbol, texts in lines.items()
        }

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._lines

    def expand(self, symbol: str, rng: Random, depth: int = 0) -> str:
        """One random expansion. InputError if the symbol leads back to itself without end."""
        if depth > MAX_DEPTH:
            raise InputError(f"symbol {symbol!r} expands without end", where=self.name)
        out = []
        for piece in rng.choice(self._lines[symbol]):
            if isinstance(piece, str):
                out.append(piece)
            elif isinstance(piece, list):
                out.append(rng.choice(piece))
            elif len(piece) == 1:
                out.append(self.expand(piece[0], rng, depth + 1))
            else:
                out.append(str(rng.randint(*piece)))
        return "".join(out)


def _pieces(line: str, plain: Mapping[str, list[str]]) -> list[_Piece]:
    pieces: list[_Piece] = []
    at = 0
    for slot in _SLOT.finditer(line):
        if slot.start() > at:
            pieces.append(line[at : slot.start()])
        low, high, symbol = slot.groups()
        if symbol:
            pieces.append(plain.get(symbol) or (symbol,))
        else:
            pieces.append((int(low), int(high)))
        at = slot.end()
    if at < len(line):
        pieces.append(line[at:])
    return pieces


def checked_lines(raw: object, where: Path, required: Sequence[str]) -> dict[str, list[str]]:
    """A grammar file's content. InputError for what is missing, empty, unknown or no text."""
    if not isinstance(raw, dict):
        raise InputError("a grammar is a mapping of symbols to lists of texts", where=where)
    for symbol in required:
        if symbol not in raw:
            raise InputError(f"symbol {symbol!r} is missing", where=where)
    for symbol, lines in raw.items():
        if not isinstance(lines, list) or not lines or not all(isinstance(x, str) for x in lines):
            raise InputError(f"{symbol}: expected a list of texts", where=where)
        for line in lines:
            _check_slots(symbol, line, raw, where)
    return raw


def _check_slots(symbol: str, line: str, raw: Mapping[str, object], where: Path) -> None:
    for low, high, name in _SLOT.findall(line):
        if name and name not in raw:
            raise InputError(f"{symbol}: unknown symbol {name!r}", where=where)
        if low and int(low) > int(high):
            raise InputError(f"{symbol}: {{int:{low}-{high}}} has no number", where=where)
