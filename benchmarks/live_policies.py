"""Genuine reuse on the live server under each eviction policy: `loadkit run` of a mixture.

    python benchmarks/live_policies.py [--seeds 5] [--sessions 100] [--replay-weight 30] [--users 4]

The mixture is `mixed-production` in a closed loop with short waits and replies, with a part beside
it that sends six prompts again and again (`--replay-weight` beside the other parts' 100; 0: none).
Each run has a fresh `loadkit serve` with a tiny random model, whose hits do not depend on what it
says. Capacities are SHARES of the blocks that the LRU server saw with room for all of them. Printed:
genuine hit tokens (continuation + shared) and replay in % of all prompt tokens, the mean over seeds
with a 95% t interval, and the paired difference to LRU with its own.

Not finished: no whole series was run yet, and in the one trial the replaying part showed 0% replay,
which must be understood before any figure from here is quoted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from corpus_model import write_corpus_model  # noqa: E402
from served import serving  # noqa: E402

from loadkit.core.tokenizer import load_tokenizer  # noqa: E402
from loadkit.traces import read_trace  # noqa: E402

# The least at which the longest prompt finds room; chosen before any result was seen.
SHARES = (0.2, 0.4, 0.7)
POLICIES = ("lru", "lfu", "diversity")
# 97.5% quantiles of Student's t for 1 to 9 degrees of freedom, from any table.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
BLOCK_SIZE, ROOM_FOR_ALL = 16, 60_000
QUICK = {"distribution": "constant", "mean": 0.01, "max": 1, "source": "benchmark"}
REPLY = {"distribution": "constant", "mean": 4, "max": 4, "source": "benchmark"}
LENGTH = {"distribution": "constant", "mean": 40, "max": 400, "source": "benchmark"}


def mixture(sessions: int, replay_weight: float, users: int) -> dict[str, Any]:
    """The bundled profile, made short, with a replaying part."""
    made = yaml.safe_load((ROOT / "profiles/mixed-production/profile.yaml").read_text())
    made["arrivals"] = {"loop": "closed", "users": users}
    made["request"]["max_tokens"] = REPLY
    for part, key, most in (("agents", "steps", 4), ("documents", "sentences", 80)):
        traffic = next(p for p in made["traffic"]["parts"] if p["name"] == part)["traffic"]
        traffic.get("documents", traffic)[key]["max"] = most
    made["traffic"]["sessions"] = sessions
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


def run(profile: Path, model: Path, policy: str, capacity: int, seed: int, out: Path) -> Any:
    """run.json of one run on a server of its own."""
    options = ["--model", str(model), "--num-blocks", str(capacity), "--policy", policy]
    with serving(*options) as served:
        command = [sys.executable, "-m", "loadkit", "run", str(profile), "--url", served.url]
        command += ["--tokenizer", str(model), "--seed", str(seed), "-o", str(out), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(done.stderr[-600:])
    return json.loads(done.stdout)


def shares_of(result: Any) -> tuple[float, float]:
    """(genuine, replay) in % of prompt tokens."""
    split, total = result["split"], result["totals"]["prompt_tokens"]
    replay = split["replay_same_session"] + split["replay_cross_session"]
    return 100 * (split["continuation"] + split["shared"]) / total, 100 * replay / total


def interval(values: list[float]) -> str:
    """Mean and half the width of the 95% t interval."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    half = T_975[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def compare(profile: Path, model: Path, seeds: int, folder: Path) -> None:
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for seed in range(1, seeds + 1):
        out = folder / f"all-{seed}"
        run(profile, model, "lru", ROOM_FOR_ALL, seed, out)
        blocks = read_trace(
            [out / "sent.jsonl.gz"], tokenizer=load_tokenizer(str(model)), block_size=BLOCK_SIZE
        )
        for share in SHARES:
            for policy in POLICIES:
                capacity = max(1, round(share * blocks.num_unique_blocks))
                out = folder / f"{policy}-{share}-{seed}"
                result = shares_of(run(profile, model, policy, capacity, seed, out))
                found.setdefault((policy, share), []).append(result)
                print(f"seed {seed} {policy} {capacity} blocks: {result}", file=sys.stderr)
    print("| policy | cache | genuine % | replay % | genuine less LRU's |\n|---|---|---|---|---|")
    for (policy, share), values in sorted(found.items(), key=lambda item: item[0][1]):
        genuine, replay = [v[0] for v in values], [v[1] for v in values]
        less = [g - lru[0] for g, lru in zip(genuine, found["lru", share], strict=True)]
        cells = f"{interval(genuine)} | {interval(replay)} | {interval(less)}"
        print(f"| {policy} | {share:.0%} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--replay-weight", type=float, default=30)
    parser.add_argument("--users", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        profile = folder / "profile.yaml"
        profile.write_text(json.dumps(mixture(asked.sessions, asked.replay_weight, asked.users)))
        compare(profile, write_corpus_model(folder / "tiny"), asked.seeds, folder)


if __name__ == "__main__":
    main()
