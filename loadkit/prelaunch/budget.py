"""A limit on what may be sent, checked before the first request."""

from __future__ import annotations

import re

import msgspec

from loadkit.core.errors import InputError
from loadkit.prelaunch.cost import Cost

_PART = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)(req|tok)")
_SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_FORM = "such as 500req, 2Mtok or 500req,2Mtok"


class Budget(msgspec.Struct, frozen=True):
    """None: no limit. tokens: of prompts, cached or not, and of answers as long as they may get."""

    requests: int | None = None
    tokens: int | None = None


def parse_budget(text: str) -> Budget:
    """`500req,2Mtok`. InputError for anything else."""
    found: dict[str, int] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None or match[3] in found:
            raise InputError(f"not a budget: {part.strip()!r}", where="--budget", remedy=_FORM)
        found[match[3]] = int(float(match[1]) * _SIZES[match[2]])
    return Budget(found.get("req"), found.get("tok"))


def check_budget(cost: Cost, budget: Budget) -> None:
    """InputError, before anything is sent, if the plan may cost more."""
    for name, planned, limit in (
        ("requests", cost.requests, budget.requests),
        ("tokens", cost.tokens, budget.tokens),
    ):
        if limit is not None and planned > limit:
            about = "about " if name == "tokens" else ""
            raise InputError(
                f"the plan sends {about}{planned:,} {name}, the budget is {limit:,}",
                where="--budget",
                remedy="plan less, such as --set traffic.sessions=N, or allow more",
            )
