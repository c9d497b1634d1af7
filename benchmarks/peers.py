"""Our exact answers beside those of other analyzers, each by the other's own definition, and speed.

    python benchmarks/peers.py TRACE --peers BIN [--tokenizer FOLDER]

TRACE is an unpacked Mooncake file. BIN is the bin folder of a throwaway environment of its own:

    python -m venv /tmp/peers && /tmp/peers/bin/pip install aiperf kvlint llmtrafficlens kvcache-simulator

FOLDER has a tokenizer with a chat template, for kvlint: it reads text only, so it gets seeded chats.
Peers that are not installed are named and left out. docs/accuracy-peers.md explains each line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadkit.analysis.curve import hit_curve
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import Reuse, reuse_of
from loadkit.core.tokenizer import load_tokenizer
from loadkit.traces import read_trace

# In a file of its own process: AIPerf's analysis without its start, file already parsed.
AIPERF_COMPUTATION = """
import json, sys, time
from aiperf.dataset.synthesis.prefix_analyzer import PrefixAnalyzer
rows = [json.loads(line) for line in open(sys.argv[1])]
analyzer = PrefixAnalyzer(block_size=512)
start = time.process_time()
analyzer.analyze_traces(rows)
print(time.process_time() - start)
"""
_WORDS = [
    "a",
    "cache",
    "holds",
    "blocks",
    "that",
    "prompts",
    "share",
    "since",
    "the",
    "system",
    "prompt",
    "comes",
    "first",
]
KV_MODEL, KV_BUDGETS_GIB = "llama-3.1-8b", "64,256,1024"


@dataclass
class Line:
    """One figure of a peer and ours by the same definition."""

    peer: str
    figure: str
    theirs: float
    ours: float


class Peers:
    """The other tools' commands, run in a scratch folder."""

    def __init__(self, folder: Path, scratch: Path):
        self.folder, self.scratch = folder, scratch

    def has(self, name: str) -> bool:
        found = (self.folder / name).exists()
        if not found:
            print(f"{name}: not installed, left out")
        return found

    def run(self, name: str, *arguments: str | Path) -> str:
        """Output of a peer's command. CalledProcessError if it fails."""
        command = [str(self.folder / name), *map(str, arguments)]
        offline = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=self.scratch, env=offline, capture_output=True, text=True, check=True
        )
        return done.stdout

    def report(self, name: str) -> Any:
        return json.loads((self.scratch / name).read_text("utf-8"))


def aiperf(peers: Peers, path: Path, given: Reuse) -> Iterator[Line]:
    """Mean over requests of leading ids seen before / ids."""
    peers.run("aiperf", "analyze-trace", path, "512", "--output-file", "aiperf.json")
    share = given.hit_blocks(None) / np.diff(given.trace.block_ptr)
    theirs = peers.report("aiperf.json")["cache_hit_rate"]
    yield Line("AIPerf", "mean of requests' rates, no limit", theirs, float(share.mean()))


def kvcache_simulator(peers: Peers, path: Path, given: Reuse) -> Iterator[Line]:
    """Token-weighted over the last half of the requests, the first half only fills the cache."""
    peers.run(
        "kvcache-simulator", "run", "--trace", path, "--model", KV_MODEL, "--block-size", "512",
        "--budgets-gib", KV_BUDGETS_GIB, "--policies", "lru", "--backend", "python",
        "--no-progress", "--format", "json", "-o", "kv.json",
    )  # fmt: skip
    report = peers.report("kv.json")
    half = report["metadata"]["warmupRequests"]

    def last_half(capacity: int | None) -> float:
        hit = given.tokens(given.hit_blocks(capacity))[half:].sum()
        return float(hit / given.trace.prompt_tokens[half:].sum())

    yield Line(
        "kvcache-simulator", "last half, no limit", report["hitRateCeiling"], last_half(None)
    )
    for point in report["points"]:
        blocks = point["cacheBlocks"]
        theirs = point["results"]["lru"]["hitRate"]
        yield Line("kvcache-simulator", f"last half, LRU {blocks:,}", theirs, last_half(blocks))


def llmtrafficlens(peers: Peers, path: Path, given: Reuse) -> Iterator[Line]:
    """Every id counts as 512 tokens, the partial last one too; heads are touched before tails."""
    peers.run(
        "llmtrafficlens", "profile", "--format", "mooncake", "--warmup", "0", "-o", "ltl", path
    )
    trace = given.trace
    total = int(trace.prompt_tokens.sum())
    for point in peers.report("ltl.json")["reuse_potential"]["curve"]:
        tokens = point["capacity_tokens"]
        blocks = None if tokens is None else max(1, tokens // 512)
        exact = int(given.tokens(given.hit_blocks(blocks)).sum()) / total
        theirs = point["hit_rate"]
        size = "no limit" if blocks is None else f"LRU {blocks:,}"
        yield Line("llmtrafficlens", f"{size}, our definition", theirs, exact)
        same = head_first_hits(given, blocks) * 512 / total
        yield Line("llmtrafficlens", f"{size}, its definition", theirs, round(same, 4))


def head_first_hits(given: Reuse, capacity: int | None) -> int:
    """Ids found one by one in an LRU that touches heads first and so evicts parents before children."""
    trace, cache, hits = given.trace, OrderedDict[int, None](), 0
    for block in trace.block_ids.tolist():
        if block in cache:
            hits += 1
            cache.move_to_end(block)
            continue
        cache[block] = None
        if capacity is not None and len(cache) > capacity:
            cache.popitem(last=False)
    return hits


def chats(seed: int) -> Iterator[dict[str, Any]]:
    """30 sessions of three turns under three system prompts; every second request is sent twice."""
    draw = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(draw.choice(_WORDS) for _ in range(words))

    systems = [text(60) for _ in range(3)]
    for _ in range(30):
        messages = [{"role": "system", "content": draw.choice(systems)}]
        for _ in range(3):
            messages = [*messages, {"role": "user", "content": text(25)}]
            yield from [{"messages": messages}] * draw.choice((1, 2))
            messages = [*messages, {"role": "assistant", "content": text(20)}]


def kvlint(peers: Peers, tokenizer: Path) -> Iterator[Line]:
    """Full blocks of 16 (vllm) or tokens (sglang) seen before; no rule for the last block or token."""
    log = peers.scratch / "chats.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in chats(seed=1)), "utf-8")
    peers.run(
        "kvlint", "analyze", log, "--model", tokenizer, "--engine", "vllm", "--engine", "sglang",
        "--json", "kvlint.json",
    )  # fmt: skip
    served = load_tokenizer(tokenizer)
    for result in peers.report("kvlint.json")["sims"]:
        engine = result["engine"]
        size = 16 if engine == "vllm" else 1
        trace = read_trace([log], tokenizer=served, block_size=size)
        reuse = reuse_of(trace, "none")
        rows = result["per_request"]
        total = sum(row["prompt_tokens"] for row in rows)
        theirs = sum(row["cached_tokens"] for row in rows) / total
        ours = int(reuse.tokens(reuse.hit_blocks(None)).sum()) / int(trace.prompt_tokens.sum())
        yield Line("kvlint", f"{engine}, no limit, no last-block rule", theirs, ours)
        ruled = per_request_of(reuse_of(trace, engine), None).total().rate("hit") or 0.0
        yield Line("kvlint", f"{engine}, no limit, engine's rule", theirs, ruled)


# --- speed --------------------------------------------------------------------------------------


def cpu_of(call: Callable[[], object]) -> float:
    """CPU seconds, user and system, of the child processes that a call waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best_of(repeat: int, call: Callable[[], float]) -> float:
    return min(call() for _ in range(repeat))


def compare_speed(peers: Peers, path: Path, repeat: int) -> None:
    """The same command line on the same file, start-up included; and the computation alone."""
    loadkit = [sys.executable, "-m", "loadkit", "analyze", str(path), "--json"]

    def ours_whole() -> object:
        return subprocess.run(loadkit, stdout=subprocess.DEVNULL, check=True)

    def theirs_whole() -> object:
        return peers.run("aiperf", "analyze-trace", path, "512")

    ours = best_of(repeat, lambda: cpu_of(ours_whole))
    theirs = best_of(repeat, lambda: cpu_of(theirs_whole))
    print(
        f"whole command    loadkit {ours:6.2f} s CPU   AIPerf {theirs:6.2f}   ratio {ours / theirs:.2f}"
    )
    trace = read_trace([path])

    def computation() -> float:
        start = time.process_time()
        hit_curve(reuse_of(trace))
        return time.process_time() - start

    computation()  # compiles
    exact = best_of(repeat, computation)
    other = best_of(
        repeat, lambda: float(peers.run("python", "-c", AIPERF_COMPUTATION, path).split()[-1])
    )
    print(
        f"computation      loadkit {exact:6.3f} s CPU   AIPerf {other:6.3f}"
        f"   AIPerf / loadkit {other / exact:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    path = asked.trace.resolve()
    given = reuse_of(read_trace([path]), "none")
    with tempfile.TemporaryDirectory() as scratch:
        peers = Peers(asked.peers.resolve(), Path(scratch))
        lines: list[Line] = []
        for name, compare in (
            ("aiperf", aiperf),
            ("kvcache-simulator", kvcache_simulator),
            ("llmtrafficlens", llmtrafficlens),
        ):
            if peers.has(name):
                lines += compare(peers, path, given)
        if asked.tokenizer and peers.has("kvlint"):
            lines += kvlint(peers, asked.tokenizer.resolve())
        for line in lines:
            print(
                f"{line.peer:18} {line.figure:40} theirs {line.theirs:.6f}"
                f"  ours {line.ours:.6f}  difference {100 * (line.ours - line.theirs):+.3f} pt"
            )
        if peers.has("aiperf"):
            compare_speed(peers, path, asked.repeat)


if __name__ == "__main__":
    main()
