"""How far rates from a sample of blocks are from the exact ones, on the public traces.

`python tests/validation/sampling_errors.py` prints a table. Errors are of LRU hit rates at the 24
capacities of the exact curve, in points, over 5 seeds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from public_data import CONVERSATION, DATA, SYNTHETIC, WEKA, missing

from loadkit.analysis import analyze
from loadkit.analysis.sampling import analyze_sampled
from loadkit.core.trace import Trace
from loadkit.traces import read_trace, write_hashed
from loadkit.traces.reading import Reading

SEEDS = 5
T_QUANTILE = 2.78  # of Student's t with 4 degrees of freedom: 95% of errors should be within


def errors_of(
    trace: Trace, path: Path, format: str, rate: float, seeds: int = SEEDS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """(errors (seeds, capacities), standard errors alike, share of touches kept)."""
    exact = analyze(trace).curve
    sizes = [point.capacity_blocks for point in exact]
    known = np.array([point.hit_rate for point in exact])
    runs = [
        analyze_sampled(Reading([path]), format, rate, lambda size: sizes, None, seed)
        for seed in range(seeds)
    ]
    rates = np.array([[point.hit_rate for point in run.curve] for run in runs])
    told = np.array([[point.standard_error for point in run.curve] for run in runs])
    kept = np.mean([run.sampled.kept_touches / run.sampled.block_touches for run in runs])
    return rates - known, told, float(kept)


def main() -> None:
    print(
        "trace | blocks | sample | touches kept | mean error | largest | standard error | covered"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONVERSATION, SYNTHETIC, WEKA):
            if missing(name):
                print(f"{name} | not in LOADKIT_DATA")
                continue
            trace, path, format = read_trace([DATA / name]), DATA / name, "mooncake"
            if name == WEKA:  # its ids are local to sessions: numbered anew, and logged as hashes
                path, format = Path(folder) / "weka.jsonl", "hashed"
                write_hashed(trace, path)
            for rate in (0.1, 0.01):
                errors, told, kept = errors_of(trace, path, format, rate)
                inside = np.abs(errors) <= T_QUANTILE * told + 1e-9
                print(
                    f"{name.split('.')[0]} | {trace.num_blocks:,} | {100 * rate:g}% |"
                    f" {100 * kept:.1f}% | {100 * np.abs(errors).mean():.2f} |"
                    f" {100 * np.abs(errors).max():.2f} | {100 * told.mean():.2f} |"
                    f" {100 * inside.mean():.0f}%"
                )


if __name__ == "__main__":
    main()
