"""Grammars: symbols with lines, slots in the lines expanded at random. Data, never code.

`{symbol}` is one of that symbol's lines, `{int:a-b}` a whole number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from loadkit.core.errors import InputError

# Caps on what a grammar from elsewhere may ask for: twelve levels of ten slots would be 10^12 pieces.
MAX_DEPTH = 12
MAX_PIECES = 10_000
MAX_LINE = 4_000
MAX_DIGITS = 18
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

    def expand(self, symbol: str, rng: Random) -> str:
        """One random expansion. InputError if it has no end, or grows beyond MAX_PIECES."""
        out: list[str] = []
        self._expand(symbol, rng, 0, out)
        return "".join(out)

    def _expand(self, symbol: str, rng: Random, depth: int, out: list[str]) -> None:
        if depth > MAX_DEPTH:
            raise InputError(f"symbol {symbol!r} expands without end", where=self.name)
        if len(out) > MAX_PIECES:
            raise InputError(
                f"symbol {symbol!r} expands to more than {MAX_PIECES:,} pieces", where=self.name
            )
        for piece in rng.choice(self._lines[symbol]):
            if isinstance(piece, str):
                out.append(piece)
            elif isinstance(piece, list):
                out.append(rng.choice(piece))
            elif len(piece) == 1:
                self._expand(piece[0], rng, depth + 1, out)
            else:
                out.append(str(rng.randint(*piece)))


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


def checked_lines(
    raw: object, where: Path, required: Sequence[str], languages: Sequence[str] = ()
) -> dict[str, list[str]]:
    """A grammar file's content. InputError for what is missing, empty, unknown or no text.

    required: symbols that must be there, as they are or in each of the languages.
    """
    if not isinstance(raw, dict):
        raise InputError("a grammar is a mapping of symbols to lists of texts", where=where)
    for symbol in required:
        if symbol not in raw:
            _check_languages(symbol, raw, languages, where)
    for symbol, lines in raw.items():
        if not isinstance(lines, list) or not lines or not all(isinstance(x, str) for x in lines):
            raise InputError(f"{symbol}: expected a list of texts", where=where)
        for line in lines:
            _check_line(symbol, line, raw, where)
    return raw


def _check_languages(
    symbol: str, raw: Mapping[str, object], languages: Sequence[str], where: Path
) -> None:
    names = [f"{symbol}_{language}" for language in languages] or [symbol]
    for name in names:
        if name not in raw:
            raise InputError(f"symbol {name!r} is missing", where=where)


def _check_line(symbol: str, line: str, raw: Mapping[str, object], where: Path) -> None:
    if len(line) > MAX_LINE:
        raise InputError(f"{symbol}: a line is longer than {MAX_LINE:,} characters", where=where)
    for low, high, name in _SLOT.findall(line):
        if name and name not in raw:
            raise InputError(f"{symbol}: unknown symbol {name!r}", where=where)
        if max(len(low), len(high)) > MAX_DIGITS:
            raise InputError(f"{symbol}: a number has more than {MAX_DIGITS} digits", where=where)
        if low and int(low) > int(high):
            raise InputError(f"{symbol}: {{int:{low}-{high}}} has no number", where=where)
