"""How long planning takes: `build_plan` for each traffic kind, and the freshness check.

    python benchmarks/plan_speed.py [--sessions 10000] [--tokenizer NAME]

Each kind of the bundled profiles with so many sessions; agents plan a tenth of it, since a task has
some 20 requests. With a tokenizer also: plans of exact lengths, and the check of openings and of all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from loadkit import profiles
from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.planning import LocalCounter, check_fresh
from loadkit.traffic.build import build_plan

COUNTS = {
    "chat-assistant": "traffic.sessions={n}",
    "doc-qa": "traffic.sessions={n}",
    "single-turn-organic": "traffic.requests={n}",
    "batch-eval": "traffic.suite={third}",
    "mixed-production": "traffic.sessions={n}",
    "coding-agent": "traffic.sessions={tenth}",
}
EXACT = (
    "traffic.message_sentences=null",
    "traffic.prompt_tokens={distribution: lognormal, median: 500, sigma: 0.5, min: 50, max: 4000, "
    "source: benchmark}",
)


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    made = make()
    return made, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--tokenizer")
    asked = parser.parse_args()
    n = asked.sessions
    for name, setting in COUNTS.items():
        settings = [setting.format(n=n, third=n // 3, tenth=n // 10)]
        plan, seconds = timed(lambda: build_plan(profiles.load(name, settings)))  # noqa: B023
        print(
            f"{name:<20} {len(plan.sessions):>7} sessions {plan.num_requests:>7} requests", end=""
        )
        print(f" {seconds:6.1f} s")
    if asked.tokenizer:
        exact_and_fresh(load_tokenizer(asked.tokenizer), n)


def exact_and_fresh(tokenizer: Tokenizer, n: int) -> None:
    settings = [COUNTS["single-turn-organic"].format(n=n), *EXACT]
    profile = profiles.load("single-turn-organic", settings)
    plan, seconds = timed(lambda: build_plan(profile, LocalCounter(tokenizer)))
    right = {session.session for session in plan.sessions}
    print(f"exact prompts        {len(right):>7} sessions of some 500 tokens {seconds:6.1f} s")
    chat = build_plan(profiles.load("chat-assistant", [f"traffic.sessions={n // 10}"]))
    for openings_only in (True, False):
        report, seconds = timed(
            lambda: check_fresh(chat, tokenizer, 16, openings_only=openings_only)  # noqa: B023
        )
        print(
            f"freshness, {'openings' if openings_only else 'all     '}  {report.requests:>7} ",
            end="",
        )
        print(f"requests {report.prompt_tokens:>9} tokens {seconds:6.1f} s")


if __name__ == "__main__":
    main()
