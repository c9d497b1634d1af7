"""Growing a template and counting what comes of it: the question without its capacities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from loadkit.analysis.weighted import WeightedHits
from loadkit.core.trace import FloatArray
from loadkit.forecast.counting import count_fleet, rates_of
from loadkit.forecast.fleet import Fleet
from loadkit.forecast.interval import Capacities
from loadkit.forecast.superpose import Production, Template, superpose
from loadkit.forecast.times import Jitter

THINNINGS = 8  # less traffic than the log's: all of several random parts of it together


@dataclass(frozen=True, slots=True)
class Growth:
    """How a template is grown and counted: the question without its capacities."""

    fleet: Fleet
    horizon_s: float | None = None
    alone: str = "estimate"
    jitter: Jitter = "neighbour"

    def rates(
        self, template: Template, traffic: float, capacities: Capacities, seed: int
    ) -> FloatArray:
        """(2, c) hit rate and organic hit rate at `traffic` times the template's."""
        return rates_of(self.count(self.builds(template, traffic, seed), capacities, seed))

    def builds(self, template: Template, traffic: float, seed: int) -> list[Production]:
        """One synthetic production; several thinnings of the log if production has less traffic."""
        return [
            superpose(
                template,
                traffic,
                np.random.default_rng([seed, index]),
                alone=self.alone,
                jitter=self.jitter,
            )
            for index in range(THINNINGS if traffic < 1 else 1)
        ]

    def count(self, builds: list[Production], capacities: Capacities, seed: int) -> WeightedHits:
        """Hits of all builds together."""
        return reduce(
            add,
            (count_fleet(b.stream, capacities, self.fleet, self.horizon_s, seed) for b in builds),
        )
