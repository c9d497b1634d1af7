"""Memory of `loadkit analyze --sample` on a text log several times larger than what it may use.

    python benchmarks/stream_memory.py --tokenizer FOLDER [--megabytes N] [--limit-mb N]

A log of seeded chats (OpenAI format: half of every prompt is a shared system prompt or the chat's
earlier turns) is written to a temporary folder and sampled in a fresh process. Its address space is
limited to what it had after a log of one row (imports, tokenizer, compiled code) and `limit-mb`
more; beyond that it would die. The same limit is then given to the exact analysis, which keeps the
log's blocks and texts, as a control.
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

MB = 1024 * 1024
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
]


def write_log(path: Path, megabytes: int) -> int:
    """Chats of up to 6 turns until the file is large enough; the number of rows."""
    draw, rows = random.Random(1), 0
    systems = [_text(draw, 300) for _ in range(20)]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * MB:
            messages = [{"role": "system", "content": draw.choice(systems)}]
            for _ in range(draw.randint(1, 6)):
                messages = [*messages, {"role": "user", "content": _text(draw, 400)}]
                row = {"timestamp": rows, "session_id": f"s{rows}", "messages": messages}
                file.write(json.dumps(row) + "\n")
                messages = [*messages, {"role": "assistant", "content": _text(draw, 60)}]
                rows += 1
    return rows


def _text(draw: random.Random, words: int) -> str:
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(50)}" for _ in range(words))


def child(path: Path, small: Path, folder: str, limit_mb: int, exact: bool) -> None:
    """Analyze in this process within the limit; print the peaks as JSON."""
    from loadkit.analysis import analyze
    from loadkit.analysis.sampling import analyze_sampled
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.traces import read_trace
    from loadkit.traces.reading import Reading

    tokenizer = load_tokenizer(folder)

    def run(log: Path) -> float | None:
        if exact:
            return analyze(read_trace([log], tokenizer=tokenizer)).infinite.hit_rate
        return analyze_sampled(
            Reading([log]), "openai", 0.01, tokenizer=tokenizer
        ).infinite.hit_rate

    run(small)
    before = _kilobytes("VmSize"), _kilobytes("VmRSS")
    room = (before[0] + 1024 * limit_mb) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    start = time.perf_counter()
    rate = run(path)
    print(
        json.dumps(
            {
                "hit_rate": rate,
                "rss_mb": (_kilobytes("VmHWM") - before[1]) / 1024,
                "seconds": time.perf_counter() - start,
            }
        )
    )


def _kilobytes(name: str) -> int:
    """A figure of /proc/self/status (Linux)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0])


def measure(tokenizer: str, megabytes: int, limit_mb: int, control: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "log.jsonl", Path(folder) / "small.jsonl"
        rows = write_log(path, megabytes)
        with path.open("rb") as file:
            small.write_bytes(file.readline())
        print(f"a text log of {path.stat().st_size / MB:,.0f} MB, {rows:,} requests")
        for way in ("sample", "exact") if control else ("sample",):
            command = [sys.executable, __file__, "--tokenizer", tokenizer, "--child", str(path)]
            command += ["--small", str(small), "--limit-mb", str(limit_mb)]
            done = subprocess.run(
                [*command, *(["--exact"] if way == "exact" else [])],
                capture_output=True,
                text=True,
                check=False,
            )
            told = done.stdout.strip() or (done.stderr.strip().splitlines() or ["?"])[-1][:120]
            print(f"{way} within {limit_mb} MB above one row: exit {done.returncode}, {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--limit-mb", type=int, default=200)
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--small", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--exact", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        child(asked.child, asked.small, asked.tokenizer, asked.limit_mb, asked.exact)
    else:
        measure(asked.tokenizer, asked.megabytes, asked.limit_mb, not asked.no_control)


if __name__ == "__main__":
    main()
