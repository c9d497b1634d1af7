"""How far chance moves a ratio over sessions: its error, and how surely that error is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loadkit.core.trace import FloatArray


class Spread(NamedTuple):
    """error: standard error of the ratio. freedom: of the error itself, for Student's t."""

    error: float
    freedom: float


def spread_of(part: FloatArray, whole: FloatArray) -> Spread | None:
    """The spread of sum(part) / sum(whole) over sessions (arrays of shape (sessions,)); None for fewer
    than two that count.

    Error: the jackknife that leaves out one session after another (Wolter, Introduction to Variance
    Estimation, 4.2). Freedom: the variance of a variance of n values is (kurtosis - 1) / n of its
    square, and 2 / freedom of it in Student's t; few heavy sessions have a high kurtosis, so their
    spread is known far less surely than their number says. Never more than n - 1, nor less than 2.
    """
    part, whole = part[whole > 0], whole[whole > 0]
    left = whole.sum() - whole
    if len(whole) < 2 or not (left > 0).all():
        return None
    figures = (part.sum() - part) / left
    off, count = figures - figures.mean(), len(figures)
    squares = float((off**2).sum())
    if squares == 0.0:
        return Spread(0.0, count - 1)
    kurtosis = count * float((off**4).sum()) / squares**2
    freedom = 2 * count / max(kurtosis - 1, 1e-9)
    error = float(np.sqrt((count - 1) / count * squares))
    return Spread(error, min(count - 1, max(2.0, freedom)))


def of_difference(one: Spread, other: Spread) -> Spread:
    """The spread of the difference of two figures from different sessions: variances add; freedom by
    Welch and Satterthwaite."""
    squares = one.error**2, other.error**2
    total = sum(squares)
    if total == 0.0:
        return Spread(0.0, min(one.freedom, other.freedom))
    below = squares[0] ** 2 / one.freedom + squares[1] ** 2 / other.freedom
    return Spread(float(np.sqrt(total)), total**2 / below)
