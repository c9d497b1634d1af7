"""The measured part of a run beside the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadkit.runs.prediction import Predictions
from loadkit.runs.record import Record
from loadkit.runs.splits import RequestSplits


@dataclass(frozen=True, slots=True)
class Gathered:
    """Records of all workers. `duplicates`: records found twice byte for byte, kept once."""

    records: list[Record]
    torn_bytes: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class View:
    """What the figures of run.json are made of.

    gathered and everything (answered, in order of sending) are of all phases: the server's counters
    know no phases. records, answered, splits and predictions are of the measured phase; the last
    three run parallel. whole_predictions runs parallel to everything.
    """

    gathered: Gathered
    everything: Sequence[Record]
    records: Sequence[Record]
    answered: Sequence[Record]
    splits: RequestSplits
    predictions: Predictions | None
    whole_predictions: Predictions | None


def measured_view(
    gathered: Gathered,
    everything: Sequence[Record],
    splits: RequestSplits,
    predictions: Predictions | None,
) -> View:
    """`splits` and `predictions` have a row for each record of `everything`."""
    rows = np.array([record.phase == "measured" for record in everything], np.bool_)
    return View(
        gathered,
        everything,
        [record for record in gathered.records if record.phase == "measured"],
        [record for record in everything if record.phase == "measured"],
        splits.only(rows),
        None if predictions is None else predictions.only(rows),
        predictions,
    )
