"""The answered requests of a run's measured phase, read back from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadkit.core.trace import FloatArray

_NUMBERS = (
    *("prompt_tokens", "output_tokens", "cached_tokens", "intended_s", "sent_s", "completed_s"),
    *("ttft_s", "tpot_s", "e2e_s"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """run: run.json. number: columns (n,) over answered requests, NaN where not known. gaps_s: all
    gaps between tokens, pooled. duration_s: first send to last end."""

    run: dict[str, Any]
    number: dict[str, FloatArray]
    gaps_s: FloatArray

    @property
    def duration_s(self) -> float:
        if not len(self.number["sent_s"]):
            return 0.0
        return float(np.nanmax(self.number["completed_s"]) - np.nanmin(self.number["sent_s"]))

    @property
    def latency_s(self) -> FloatArray:
        """Send to the end of the answer: other tools do not count from the intended time."""
        return self.number["completed_s"] - self.number["sent_s"]

    def known(self, name: str) -> FloatArray:
        values = self.number[name]
        return values[np.isfinite(values)]

    def per_second(self, amount: float) -> float | None:
        return amount / self.duration_s if self.duration_s > 0 else None


def read_measured(folder: Path) -> Measured:
    run = msgspec.json.decode((folder / "run.json").read_bytes())
    rows = pq.read_table(
        folder / "requests.parquet",
        columns=["gaps_s", *_NUMBERS],
        page_checksum_verification=True,
        filters=[("outcome", "==", "ok"), ("phase", "==", "measured")],
    )
    number = {name: rows[name].to_numpy().astype(np.float64) for name in _NUMBERS}
    return Measured(run, number, pc.list_flatten(rows["gaps_s"]).to_numpy())
