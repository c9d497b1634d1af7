"""Profiles on the screen: the list, one with what it plans."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadkit.core.errors import InputError
from loadkit.corpora.public import licences_in, tell_licences
from loadkit.profiles import Profile

_UNBROKEN = 10_000  # a pipe gets a line a profile
_BYTES_A_TOKEN = 4  # a rule of thumb, for people who choose; runs count


_LEGEND = (
    f"~tokens: prompt tokens at {_BYTES_A_TOKEN} bytes each, short replies. expected: range of "
    "token-weighted hit rates; a mirage has none.",
    "Go on: loadkit profiles NAME, loadkit run NAME --url URL -o DIR, loadkit profiles new NAME",
)


def show_list(listed: Sequence[Profile], as_json: bool) -> None:
    """What a person chooses by: kind, size, the hit rate to expect, one line about each."""
    rows = [_listed(profile) for profile in listed]
    if as_json:
        print_json(rows)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBROKEN
    print(f"{'profile':<20} {'kind':<13} {'requests':>8} {'~tokens':>8} {'expected':>9}  summary")
    for row in rows:
        size = f"{_number(row['requests']):>8} {_number(row['prompt_tokens_about']):>8}"
        head = f"{row['name']:<20} {row['kind']:<13} {size} {_range(row):>9}  "
        fits = len(head) + len(row["summary"]) <= width
        print(
            head + row["summary"] if fits else f"{head.rstrip()}\n{_filled(row['summary'], width)}"
        )
    for line in _LEGEND:
        print(textwrap.fill(line, width, break_on_hyphens=False))


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    ")


def _listed(profile: Profile) -> dict[str, Any]:
    """None where a plan needs the served tokenizer, or no rate is to expect."""
    requests, about = _size(profile)
    expected = profile.expected
    return {
        "name": profile.name,
        "kind": profile.traffic.kind,
        "summary": profile.summary,
        "requests": requests,
        "prompt_tokens_about": about,
        "expected": None if expected is None else expected.model_dump(mode="json"),
    }


def _size(profile: Profile) -> tuple[int | None, int | None]:
    """Requests, and prompt tokens by the number of bytes."""
    from loadkit.traffic.build import build_plan
    from loadkit.traffic.requests import requests_of

    try:
        plan = build_plan(profile)
    except InputError:
        return None, None
    lengths: dict[int, int] = {}  # messages recur in every later request of their session
    size = 0
    for request in requests_of(plan):
        size += len(request.turn.prompt or ()) + len(str(request.session.tools or ""))
        for message in request.messages:
            text = message["content"]
            if id(text) not in lengths:
                lengths[id(text)] = len(text.encode())
            size += lengths[id(text)]
    return plan.num_requests, round(size / _BYTES_A_TOKEN)


def _number(value: int | None) -> str:
    """Two digits or three are enough to choose by."""
    if value is None:
        return "-"
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= 10 * unit:
            return f"{value / unit:.0f}{name}"
        if value >= unit and name == "M":
            return f"{value / unit:.1f}{name}"
    return str(value)


def _range(row: Mapping[str, Any]) -> str:
    expected = row["expected"]
    if expected is None:
        return "-"
    return f"{100 * expected['hit_rate_low']:.0f}-{100 * expected['hit_rate_high']:.0f}%"


def show_one(profile: Profile, tokenizer: str | None, block_size: int, as_json: bool) -> None:
    """The profile with all its values, and what it plans. As text it is a profile file again, with
    the plan in comments."""
    data = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
    licences = licences_in(data["traffic"])
    tell_licences(data["traffic"])  # before the plan is made, which reads the sets
    planned = _planned(profile, tokenizer, block_size)
    if as_json:
        print_json({"profile": data} | planned | ({"licences": licences} if licences else {}))
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
    """YAML that loads again; where a stranger's text holds what commands a terminal, in ASCII."""
    import yaml

    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
    if all(map(str.isprintable, text.split("\n"))):
        return text
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=False).rstrip()
