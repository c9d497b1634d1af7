"""Whether a run at one hit rate foretells TTFT at another: the same prompts at two cache sizes.

    python benchmarks/ttft_model.py [--profiles chat-assistant support-bot] [--blocks 2048 130]
                                    [--users 8] [--sessions 40] [--folder DIR]

One reference server a cache size on the model that it brings along; `loadkit run`'s own launcher
sends each profile's plan, with its seed, in a closed loop. From each run the step server of the
report predicts TTFT at the other's hit rate; printed beside what the other measured. ms a token of
both runs say whether the machine was as fast in both. Users think for six seconds, so that few
requests run at once and the smaller cache holds those: a queue for memory is nothing that the model
knows. About four minutes a profile on two cores; runs that lie in DIR already are read, not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadkit import profiles
from loadkit.demo.server import reference_server
from loadkit.gate.requests import read_requests
from loadkit.locust_users.launcher import run_profile
from loadkit.locust_users.preparing import Choices
from loadkit.report.build import read_run
from loadkit.report.fit import Fit, Rate, fit
from loadkit.traffic.build import build_plan
from reference_server.weights import prepare_default_model

_LENGTH = "{{distribution: constant, mean: {0}, max: {0}, source: benchmark}}"


def settings(users: int, sessions: int) -> tuple[str, ...]:
    """Short answers: the server computes on two shared cores."""
    return (
        f"arrivals={{loop: closed, users: {users}}}",
        f"traffic.sessions={sessions}",
        "traffic.turns.max=4",
        "traffic.think_s=" + _LENGTH.format(6),
        "request.max_tokens=" + _LENGTH.format(12),
        "max_duration_s=240",
    )


def measure(names: Sequence[str], blocks: int, asked: argparse.Namespace, base: Path) -> None:
    """Run each profile on one server, its cache emptied by a server of its own."""
    tokenizer = str(prepare_default_model())
    for name in names:
        out = base / f"{name}-{blocks}"
        if (out / "run.json").is_file():
            continue
        profile = profiles.load(name, settings(asked.users, asked.sessions))
        log = base / f"server-{name}-{blocks}.log"
        with reference_server(
            log, model=None, num_blocks=blocks, block_size=16, say=lambda _: None
        ) as url:
            run_profile(
                profile,
                build_plan(profile),
                url=url,
                out=out,
                choices=Choices(tokenizer=tokenizer),
                on_progress=lambda *_: None,
            )


def fitted(folder: Path, other: Path) -> tuple[Fit, dict[str, Any]]:
    run, rate = read_run(folder), read_run(other)["split"]["hit_rate"]
    asked = Rate("the other run", rate)
    return fit(folder.name, read_requests(folder), asked, closed=run["loop"] == "closed"), run


def show(folder: Path, other: Path) -> None:
    found, _ = fitted(folder, other)
    truth, _ = fitted(other, folder)
    cells = [folder.name, f"{found.n}", _percent(found.hit_rate), _percent(truth.hit_rate)]
    if found.error and found.constant_error and truth.slope_s:
        cells += [f"{found.error[0]:.3f}", f"{found.constant_error[0]:.3f}"]
        cells += [f"{1e3 * (found.slope_s or 0):.2f}", f"{1e3 * truth.slope_s:.2f}"]
    answer = found.answer
    if answer is None or answer.why_not:
        cells.append("refused: " + str(found.why_not or (answer and answer.why_not)))
    else:
        for at in (49, 89):
            ends = f"{1e3 * answer.low_s[at]:,.0f} to {1e3 * answer.high_s[at]:,.0f}"
            cells.append(f"{1e3 * answer.ttft_s[at]:,.0f} ({ends})")
            cells += [f"{1e3 * found.measured_s[at]:,.0f}", f"{1e3 * truth.measured_s[at]:,.0f}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def _percent(rate: float | None) -> str:
    return "not known" if rate is None else f"{100 * rate:.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profiles", nargs="+", default=["chat-assistant", "support-bot"])
    parser.add_argument("--blocks", nargs=2, type=int, default=[2048, 130])
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where runs are kept")
    asked = parser.parse_args()
    base = asked.folder or Path(tempfile.mkdtemp(prefix="ttft-model-"))
    base.mkdir(parents=True, exist_ok=True)
    for blocks in asked.blocks:
        measure(asked.profiles, blocks, asked, base)
    head = ("from", "n", "its rate", "rate asked", "error", "constant's", "ms a token", "there")
    times = [f"p{p} {what}" for p in (50, 90) for what in ("predicted", "here", "measured there")]
    print("| " + " | ".join([*head, *times]) + " |")
    print("|---" * (len(head) + len(times)) + "|")
    for name in asked.profiles:
        one, two = (base / f"{name}-{blocks}" for blocks in asked.blocks)
        show(one, two)
        show(two, one)


if __name__ == "__main__":
    main()
