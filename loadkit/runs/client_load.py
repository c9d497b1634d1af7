"""Was the load machine itself in the way? Stalls of the workers' loops, and their processor time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from loadkit.client.stalls import StallReport
from loadkit.runs.latency import summarize
from loadkit.runs.record import Record

# A loop held up for so long at p99 sends and stamps one in a hundred so late: the same loose limit
# as the schedule delay's, and for the same reason. Short of it, the note below is what warns.
MAX_STALL_P99_S = 1.0
# Ten stalls among so many wake-ups (10 s of them) make a p99; in a shorter run one or two would.
MIN_SAMPLES = 1000
# From here on latencies deserve a look at the stalls: a twentieth of a usual time between tokens.
NOTE_STALL_P99_S = 0.02
NOTE_CPU_SHARE = 0.9


def worst_stall_p99_s(workers: Sequence[StallReport]) -> float | None:
    return max((w.p99_s for w in workers if w.p99_s is not None), default=None)


def judged_stall_p99_s(workers: Sequence[StallReport]) -> float:
    """The worst worker's p99 of those observed for long enough to judge by; 0 without any."""
    return worst_stall_p99_s([w for w in workers if w.samples >= MIN_SAMPLES]) or 0.0


def loop_stalls(workers: Sequence[StallReport]) -> dict[str, Any] | None:
    """count and longest over all workers, p99_s of the worst; None: not one was observed."""
    known = [worker for worker in workers if worker.samples]
    if not known:
        return None
    return {
        "count": sum(worker.num_stalls for worker in known),
        "longest_s": max(worker.max_s or 0.0 for worker in known),
        "p99_s": worst_stall_p99_s(known),
    }


def client_load(workers: Sequence[StallReport], sent: Sequence[Record]) -> dict[str, Any]:
    """The `client` section of run.json. cpu_share: of one core, as each worker is one process."""
    return {
        "workers": [
            {
                "cpu_share": worker.cpu_s / worker.wall_s if worker.wall_s > 0 else None,
                **msgspec.to_builtins(worker),
            }
            for worker in workers
        ],
        "connect_s": summarize(record.connect_s for record in sent),
    }


def load_notes(workers: Sequence[StallReport]) -> list[str]:
    """Warnings for the run's notes; what is past its limit makes the run invalid instead."""
    notes = []
    stall = worst_stall_p99_s(workers)
    judged = judged_stall_p99_s(workers)
    if stall is not None and stall > NOTE_STALL_P99_S and judged <= MAX_STALL_P99_S:
        notes.append(
            f"timing is coarse: a worker's loop was held up for {1000 * stall:.0f} ms at p99; "
            "use more processes, less traffic or a quieter machine"
        )
    shares = [worker.cpu_s / worker.wall_s for worker in workers if worker.wall_s > 0]
    if shares and max(shares) > NOTE_CPU_SHARE:
        notes.append(
            f"a worker used {max(shares):.0%} of a core: use more processes, or expect late stamps"
        )
    return notes
