"""The step server's two parameters: those that foretell a run's own TTFT best.

Whatever is tried keeps its errors request by request, so what is best without some sessions, or for
another draw of them, needs no further replay.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from loadkit.core.trace import FloatArray, IntArray
from loadkit.report.step_server import Traffic, replayed

FOLDS, DRAWS = 10, 100
Found = tuple[float, float]  # log seconds a step and a token


class Search:
    """Parameters found on all requests and without each fold, as log seconds (step, token)."""

    def __init__(self, traffic: Traffic, ttft_s: FloatArray, session: IntArray):
        self.traffic, self.log_ttft = traffic, np.log(ttft_s)
        self.session, self.fold = session, session % FOLDS
        self.tried: list[Found] = []
        self.errors: list[FloatArray] = []
        # No step lasts longer than the slowest TTFT, nor can a token cost much more than all of it
        # over the mean tokens; a factor of e^7 = 1,100 below that either is nothing.
        step = log(float(np.quantile(ttft_s, 0.95)))
        token = step - log(float(traffic.uncached.mean()))
        self._try((step - 7, step), (token - 7, token + 1.5), 32)
        for half in (0.3, 0.12, 0.04):
            for step, token in set(self.best):
                self._try((step - half, step + half), (token - half, token + half), 5)
        self.all, *self.without = self.best

    def _try(self, step: tuple[float, float], token: tuple[float, float], count: int) -> None:
        """A grid of count by count between the ends of step and of token."""
        for step_s in np.linspace(*step, count):
            for token_s in np.linspace(*token, count):
                self.tried.append((float(step_s), float(token_s)))
                self.errors.append(self._error(*self.tried[-1]))

    def _error(self, step: float, token: float) -> FloatArray:
        predicted = replayed(self.traffic, exp(step), exp(token), as_sent=True)
        error: FloatArray = self.log_ttft - np.log(predicted)
        return error

    @property
    def best(self) -> list[Found]:
        """Of what was tried: for all requests, then for those outside each fold."""
        absolute = np.abs(self.errors)
        rows = [slice(None), *(self.fold != fold for fold in range(FOLDS))]
        return [self.tried[int(absolute[:, row].mean(axis=1).argmin())] for row in rows]

    def drawn(self) -> list[Found]:
        """The best of what was tried for each of other draws of the sessions."""
        count = int(self.session.max()) + 1
        times = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=DRAWS)
        losses = np.abs(self.errors) @ times[:, self.session].T
        return [self.tried[int(n)] for n in losses.argmin(axis=0)]

    def held_out(self) -> FloatArray:
        """log(measured / predicted) of every request, by parameters found without its fold."""
        each = np.array([self._error(*found) for found in self.without])
        error: FloatArray = each[self.fold, np.arange(len(self.fold))]
        return error

    def constant(self) -> FloatArray:
        """The same of the median TTFT outside the fold."""
        middle = [float(np.median(self.log_ttft[self.fold != fold])) for fold in range(FOLDS)]
        error: FloatArray = self.log_ttft - np.array(middle)[self.fold]
        return error
