"""Profiles on the screen: the list, one with what it plans."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadkit.core.errors import InputError
from loadkit.profiles import Profile

_UNBROKEN = 10_000  # a pipe gets a line a profile


def show_list(listed: Sequence[Profile], as_json: bool) -> None:
    """Name, kind and summary of each."""
    if as_json:
        print_json([{"name": p.name, "kind": p.traffic.kind, "summary": p.summary} for p in listed])
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBROKEN
    for profile in listed:
        head = f"{profile.name:<20} {profile.traffic.kind:<13} "
        print(textwrap.fill(profile.summary, width, initial_indent=head, subsequent_indent="    "))


def show_one(profile: Profile, tokenizer: str | None, block_size: int, as_json: bool) -> None:
    """The profile with all its values, and what it plans. As text it is a profile file again, with
    the plan in comments."""
    data = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
    planned = _planned(profile, tokenizer, block_size)
    if as_json:
        print_json({"profile": data} | planned)
        return
    print(_yaml(data))
    for title, facts in planned.items():
        print(f"# {title}:")
        print("\n".join(f"#   {line}" for line in _lines(facts)))


def _planned(profile: Profile, tokenizer: str | None, block_size: int) -> dict[str, Any]:
    """`plan`, `stages` and with a tokenizer `freshness`; a plan that cannot be made says why."""
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.planning import check_fresh, counter_for
    from loadkit.traffic.arrivals import stage_edges
    from loadkit.traffic.build import build_plan
    from loadkit.traffic.facts import plan_facts

    served = None if tokenizer is None else load_tokenizer(tokenizer)
    try:
        plan = build_plan(profile, counter_for(profile, served))
    except InputError as error:
        if served is not None:
            raise
        return {"plan": {"not_made": str(error)}}
    shown: dict[str, Any] = {"plan": plan_facts(plan)}
    if stages := stage_edges(profile):
        shown["stages"] = [stage._asdict() for stage in stages]
    if served is not None:
        shown["freshness"] = check_fresh(plan, served, block_size).to_dict()
    return shown


def _lines(facts: Any) -> Iterator[str]:
    rows = facts.items() if isinstance(facts, Mapping) else enumerate(facts)
    for name, value in rows:
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        if value not in ((), "", []):
            yield f"{name}: {value}"


def print_json(data: object) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def _yaml(data: object) -> str:
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
