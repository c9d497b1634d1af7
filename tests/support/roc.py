"""How well a measure tells two groups apart: the AUC, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def auc(one: Sequence[float], other: Sequence[float]) -> float:
    """Share of the pairs of one of each group in which `one` is larger; an equal pair is half."""
    a, b = np.asarray(one, float)[:, None], np.asarray(other, float)[None, :]
    return float(((a > b) + 0.5 * (a == b)).mean())


def permuted_aucs(
    one: Sequence[float], other: Sequence[float], num: int = 10_000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """(num,) AUCs when the labels are dealt out anew: what there is if the measure tells nothing."""
    both = np.concatenate([one, other])
    order = both.argsort(kind="stable")
    ranks = np.empty(len(both))
    ranks[order] = np.arange(1, len(both) + 1)
    for value in np.unique(both):  # equal values share their mean rank
        ranks[both == value] = ranks[both == value].mean()
    rng, n, m = np.random.default_rng(seed), len(one), len(other)
    sums = np.array([rng.permutation(ranks)[:n].sum() for _ in range(num)])
    return (sums - n * (n + 1) / 2) / n / m
