"""Memory and speed of reading (and analyzing) a large Mooncake log, made for the purpose.

    python benchmarks/read_memory.py [--touches N] [--blocks-a-row N] [--new-share P] [--analyze]

A log of N block touches is written to a temporary folder, chains of `blocks-a-row` blocks of which
a share is new, and read in a fresh process. It prints how far the peak of resident memory lies
above what the process needed for reading a log of one row (imports, compiled code), in bytes a
touch, beside the allowance of 24 B a touch and 16 B a distinct block. With --analyze it is the peak of
the whole of `loadkit analyze`, audit and diversity included.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_ROW = {"timestamp": 0, "input_length": 512, "hash_ids": [0]}


def write_log(path: Path, touches: int, chain: int, new_share: float) -> None:
    """Rows that keep the first part of an earlier row's chain and go on with new blocks."""
    draw = random.Random(1)
    kept = chain - max(1, round(chain * new_share))
    roots: list[list[int]] = []
    next_id = 0
    with path.open("w") as file:
        for row in range(touches // chain):
            if len(roots) < 1000:
                roots.append(list(range(next_id, next_id + kept)))
                next_id += kept
            ids = [*draw.choice(roots), *range(next_id, next_id + chain - kept)]
            next_id += chain - kept
            row_of_log = {
                "timestamp": row,
                "input_length": 512 * chain,
                "output_length": 100,
                "hash_ids": ids,
            }
            file.write(json.dumps(row_of_log) + "\n")


def read(path: Path, whole: bool) -> None:
    """Read, and analyze if `whole`, in this process; print what it took as JSON."""
    from loadkit.analysis import analyze
    from loadkit.traces import read_trace

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "one.jsonl"
        small.write_text(json.dumps(ONE_ROW) + "\n")
        analyze(read_trace([small]))
    before = peak_bytes()
    start = time.perf_counter()
    trace = read_trace([path])
    if whole:
        analyze(trace)
    print(
        json.dumps(
            {
                "requests": trace.num_requests,
                "touches": trace.num_blocks,
                "distinct": trace.num_ids,
                "bytes": peak_bytes() - before,
                "seconds": time.perf_counter() - start,
            }
        )
    )


def peak_bytes() -> int:
    """Peak resident memory of this process; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(touches: int, chain: int, new_share: float, whole: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        write_log(path, touches, chain, new_share)
        size = path.stat().st_size
        command = [sys.executable, __file__, "--read", str(path)]
        command += ["--analyze"] if whole else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    took = json.loads(done.stdout)
    allowed = 24 * took["touches"] + 16 * took["distinct"]
    print(
        f"{took['touches']:,} touches of {took['distinct']:,} distinct blocks in "
        f"{took['requests']:,} requests, {size / 1e6:,.0f} MB of JSON"
    )
    print(f"peak above an empty reading: {took['bytes'] / 1e6:,.0f} MB")
    print(f"  {took['bytes'] / took['touches']:.1f} B a touch, all told")
    print(f"  {took['bytes'] / allowed:.2f} of the allowance, {allowed / 1e6:,.0f} MB")
    print(
        f"{'analyzed' if whole else 'read'} in {took['seconds']:.1f} s, {took['touches'] / took['seconds'] / 1e6:.1f} M touches/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--touches", type=int, default=10_000_000)
    parser.add_argument("--blocks-a-row", type=int, default=25)
    parser.add_argument("--new-share", type=float, default=0.6)
    parser.add_argument("--analyze", action="store_true")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read is not None:
        read(asked.read, asked.analyze)
    else:
        measure(asked.touches, asked.blocks_a_row, asked.new_share, asked.analyze)


if __name__ == "__main__":
    main()
