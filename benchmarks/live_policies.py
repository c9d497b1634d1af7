"""Genuine reuse on the live server under each eviction policy: `loadkit run` of a mixture.

    python benchmarks/live_policies.py --seed-from 1 --seeds 1 --out ROWS.jsonl [--replay-weight 0]
    python benchmarks/live_policies.py --print ROWS.jsonl
    python benchmarks/live_policies.py --check

The mixture is `mixed-production` in a closed loop with short waits and replies. Beside it a load
test sends six prompts again and again, about once for each request of the others, as in
benchmarks/policies.py (`--replay-weight` beside the other parts' 99; 0: none). Its sessions come on
top of `--sessions`. Each run has a fresh `loadkit serve` with a tiny random model, whose hits do not
depend on what it says. Capacities are SHARES of the blocks that the LRU server saw with room for all
of them, seed by seed. Rows are appended, so that seeds may be run in separate commands.

--print: genuine hit tokens (continuation + shared) and replay in % of all prompt tokens, the mean
over seeds with a 95% t interval, and the paired differences of both to LRU and LFU with theirs. --check: one
user at a time, every policy at the smallest capacity, each cause against `loadkit analyze --policy`
on the server's request log.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from corpus_model import write_corpus_model  # noqa: E402

from loadkit.cli import main as loadkit  # noqa: E402

# The least at which the longest prompt finds room; chosen before any result was seen.
SHARES = (0.2, 0.4, 0.7)
POLICIES = ("lru", "lfu", "diversity")
CAUSES = ("replay_same_session", "replay_cross_session", "continuation", "shared", "miss_capacity")
# 97.5% quantiles of Student's t for 1 to 9 degrees of freedom, from any table.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
BLOCK_SIZE, ROOM_FOR_ALL = 16, 60_000
OTHER_WEIGHTS = 99  # of the profile's own parts together
QUICK = {"distribution": "constant", "mean": 0.01, "max": 1, "source": "benchmark"}
REPLY = {"distribution": "constant", "mean": 4, "max": 4, "source": "benchmark"}
LENGTH = {"distribution": "constant", "mean": 40, "max": 400, "source": "benchmark"}


def mixture(sessions: int, replay_weight: float, users: int) -> dict[str, Any]:
    """The bundled profile, made short, with a replaying part beside its sessions."""
    made = yaml.safe_load((ROOT / "profiles/mixed-production/profile.yaml").read_text())
    made["arrivals"] = {"loop": "closed", "users": users}
    made["request"]["max_tokens"] = REPLY
    for part, key, most in (("agents", "steps", 4), ("documents", "sentences", 80)):
        traffic = next(p for p in made["traffic"]["parts"] if p["name"] == part)["traffic"]
        traffic.get("documents", traffic)[key]["max"] = most
    made["traffic"]["sessions"] = round(sessions * (1 + replay_weight / OTHER_WEIGHTS))
    for part in made["traffic"]["parts"]:
        part.pop("max_tokens", None)
        for wait in {"think_s", "tool_s"} & part["traffic"].keys():
            part["traffic"][wait] = QUICK
    if replay_weight:
        replay = {"kind": "replay", "corpus": "assistant-chat", "distinct_prompts": 6}
        replay |= {"wrap": "allow", "message_sentences": LENGTH}
        part = {"name": "smoke", "weight": replay_weight, "traffic": replay, "source": "benchmark"}
        made["traffic"]["parts"].append(part)
    made.pop("expected", None)
    return made


# Servers are forked from a process that has imported torch once: half of a run would be that.
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = ["transformers.models.llama.modeling_llama", "reference_server.server"]


def serve(options: list[str], said: Connection) -> None:
    """`loadkit serve` in a process of its own, its output sent to `said`."""
    os.dup2(said.fileno(), 1)
    sys.argv = ["loadkit", "serve", "--port", "0", *options]
    loadkit()


@contextmanager
def serving(options: list[str]) -> Iterator[str]:
    """The URL of a fresh server."""
    heard, said = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=serve, args=(options, said), daemon=True)
    process.start()
    said.close()
    try:
        with open(heard.fileno(), closefd=False) as lines:
            yield next(line for line in lines if "ready on" in line).split()[-1]
    finally:
        process.terminate()
        process.join(40)


class Bench:
    """Runs of one profile, each on a server of its own."""

    def __init__(self, asked: argparse.Namespace, folder: Path, users: int):
        self.asked, self.folder, self.runs = asked, folder, 0
        self.model, self.profile = folder / "tiny", folder / "profile.yaml"
        self.profile.write_text(json.dumps(mixture(asked.sessions, asked.replay_weight, users)))
        write_corpus_model(self.model)

    def run(self, policy: str, capacity: int, seed: int) -> tuple[Any, Path]:
        """run.json, and the server's request log."""
        self.runs += 1
        log = self.folder / f"log-{self.runs}.jsonl"
        options = ["--model", str(self.model), "--num-blocks", str(capacity), "--policy", policy]
        with serving(options) as url:
            httpx.post(f"{url}/request_log/start").raise_for_status()
            command = [sys.executable, "-m", "loadkit", "run", str(self.profile)]
            command += ["--url", url, "--tokenizer", str(self.model), "--seed", str(seed)]
            command += ["-o", str(self.folder / f"run-{self.runs}"), "--json"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            log.write_bytes(httpx.post(f"{url}/request_log/take").content)
        if done.returncode:
            raise SystemExit(done.stderr[-600:])
        return json.loads(done.stdout), log

    def capacities(self, seed: int) -> dict[float, int]:
        """Blocks by share of what the server sees with room for all."""
        _, log = self.run("lru", ROOM_FOR_ALL, seed)
        blocks = analyzed(log)["unique_blocks"]
        return {share: max(1, round(share * blocks)) for share in SHARES}

    def rows(self, seed: int) -> Iterator[dict[str, Any]]:
        for share, capacity in self.capacities(seed).items():
            for policy in POLICIES:
                result, _ = self.run(policy, capacity, seed)
                yield {
                    "seed": seed,
                    "replay_weight": self.asked.replay_weight,
                    "share": share,
                    "policy": policy,
                    "capacity": capacity,
                    "requests": result["requests"]["ok"],
                    "prompt_tokens": result["totals"]["prompt_tokens"],
                    **{cause: result["split"][cause] for cause in CAUSES},
                }

    def check(self, seed: int) -> None:
        """Raise SystemExit unless server and analyzer agree to the token."""
        capacity = self.capacities(seed)[SHARES[0]]
        for policy in POLICIES:
            result, log = self.run(policy, capacity, seed)
            found = analyzed(log, "--policy", policy, "--capacity", str(capacity))["policies"][0]
            total = result["totals"]["prompt_tokens"]
            expected = {cause: round(found[cause] * total) for cause in CAUSES}
            served = {cause: result["split"][cause] for cause in CAUSES}
            print(f"{policy}, {capacity} blocks, {total} prompt tokens: {served}")
            if served != expected:
                raise SystemExit(f"the analyzer: {expected}")


def analyzed(log: Path, *options: str) -> Any:
    command = [sys.executable, "-m", "loadkit", "analyze", str(log), *options, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def genuine(row: Mapping[str, Any]) -> float:
    """Continuation + shared in % of prompt tokens."""
    return float(100 * (row["continuation"] + row["shared"]) / row["prompt_tokens"])


def replay(row: Mapping[str, Any]) -> float:
    hits = row["replay_same_session"] + row["replay_cross_session"]
    return float(100 * hits / row["prompt_tokens"])


def interval(values: list[float]) -> str:
    """Mean and half the width of the 95% t interval."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    half = T_975[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def print_tables(rows: Iterable[Mapping[str, Any]]) -> None:
    """A table for each weight of the replaying part. A cell run twice counts as run last."""
    cells: dict[float, dict[tuple[float, str], dict[int, Mapping[str, Any]]]] = {}
    for row in rows:
        cell = cells.setdefault(row["replay_weight"], defaultdict(dict))
        cell[row["share"], row["policy"]][row["seed"]] = row
    for weight, found in sorted(cells.items()):
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
        requests = [found[SHARES[0], "lru"][seed]["requests"] for seed in seeds]
        print(f"\nreplay weight {weight:g}; {len(seeds)} seeds, requests {requests}\n")
        print("| cache | policy | genuine % | replay % | genuine less LRU's | less LFU's |", end="")
        print(" replay less LRU's | less LFU's |")
        print("|---|---|---|---|---|---|---|---|")
        for share, policy in sorted(found, key=lambda key: (key[0], POLICIES.index(key[1]))):
            print(f"| {share:.0%} | {policy} | {' | '.join(_cells(found, share, policy, seeds))} |")


def _cells(found: Any, share: float, policy: str, seeds: list[int]) -> Iterator[str]:
    mine = [found[share, policy][seed] for seed in seeds]
    yield interval([genuine(row) for row in mine])
    yield interval([replay(row) for row in mine])
    for figure in (genuine, replay):
        for other in ("lru", "lfu"):
            theirs = [found[share, other][seed] for seed in seeds]
            less = [figure(a) - figure(b) for a, b in zip(mine, theirs, strict=True)]
            yield "" if policy == other else interval(less)


def read_rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed-from", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--replay-weight", type=float, default=150)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--out", type=Path, help="rows are appended here")
    parser.add_argument("--print", type=Path, dest="shown", help="the tables of such a file")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.shown:
        print_tables(read_rows(asked.shown))
        return
    FORKS.set_forkserver_preload(["__main__", *IMPORTED])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asked, Path(folder), 1 if asked.check else asked.users)
        if asked.check:
            bench.check(asked.seed_from)
            return
        for seed in range(asked.seed_from, asked.seed_from + asked.seeds):
            for row in bench.rows(seed):
                line = json.dumps(row)
                print(line, file=sys.stderr)
                if asked.out:
                    with asked.out.open("a") as rows:
                        rows.write(line + "\n")


if __name__ == "__main__":
    main()
