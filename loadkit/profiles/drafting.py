"""A new profile from five answers: a bundled one of the same kind with the answers put in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from loadkit.core.errors import InputError
from loadkit.profiles import Profile, find, load_yaml
from loadkit.profiles.profile import NAME_PATTERN
from loadkit.profiles.refusal import refusal

# What a service may be called, and the bundled profile whose other figures the new one begins with.
BASES = {
    "chat": "chat-assistant",
    "agent": "coding-agent",
    "documents": "doc-qa",
    "single": "single-turn-organic",
}
TOKENS_A_SENTENCE = 20  # as the bundled corpora have it, about
_TIMES_AS_LONG = 2  # as the arrivals: so that the last sessions can end
_TURNS = {"chat": "turns", "agent": "steps", "documents": "questions"}
_OTHER_PLACE = "give another name, or -o FOLDER"
_SOURCE = "answered at `loadkit profiles new`"


class Answers(NamedTuple):
    """What was answered; None: not yet. shared_tokens: in front of every prompt (the document, where
    it is about documents)."""

    service: str | None
    sessions: int | None
    rate_per_s: float | None
    requests: float | None
    shared_tokens: int | None


def check_service(service: str) -> None:
    """InputError for a service that there is no base for."""
    if service not in BASES:
        raise InputError(
            f"unknown service {service!r}",
            where="--service",
            remedy=f"one of {', '.join(BASES)}",
        )


def draft(name: str, answers: Answers) -> dict[str, Any]:
    """The new profile: a bundled one of the same kind with the answers put in. It has no expected
    range: what was published holds for other figures."""
    service = answers.service or ""
    check_service(service)
    if service == "single" and answers.requests not in (None, 1.0):
        raise InputError(
            "a single question is one request", where="--requests", remedy="take service chat"
        )
    data: dict[str, Any] = load_yaml(find(BASES[service]))
    data.pop("expected", None)
    data["name"] = name
    data["summary"] = f"Our service: {service}, {answers.sessions} sessions. Change this line."
    if answers.sessions and answers.rate_per_s and answers.rate_per_s > 0:
        longest_s = _TIMES_AS_LONG * answers.sessions / answers.rate_per_s
        data["max_duration_s"] = max(data["max_duration_s"], float(round(longest_s)))
    data["arrivals"] = {"loop": "open", "process": "poisson", "rate_per_s": answers.rate_per_s}
    counted = "requests" if service == "single" else "sessions"
    data["traffic"][counted] = answers.sessions
    if service in _TURNS:
        data["traffic"][_TURNS[service]] = _geometric(answers.requests or 1.0)
    _share(data["traffic"], service, answers.shared_tokens or 0)
    return data


def _geometric(mean: float) -> dict[str, Any]:
    most = max(1, round(mean * 8))
    return {"distribution": "geometric", "mean": mean, "min": 1, "max": most, "source": _SOURCE}


def _share(traffic: dict[str, Any], service: str, tokens: int) -> None:
    sentences = max(1, round(tokens / TOKENS_A_SENTENCE))
    source = f"{_SOURCE}: {tokens} tokens, at about {TOKENS_A_SENTENCE} a sentence"
    if service == "documents":
        lengths = {"median": sentences, "sigma": 0.5, "max": sentences * 6, "source": source}
        traffic["documents"]["sentences"] = {"distribution": "lognormal", **lengths}
    elif tokens or service != "single":
        traffic["system_prompts"] = {"count": 1, "sentences": sentences, "source": source}


def check_free(name: str, folder: Path | None) -> Path:
    """Where the profile will be written; InputError, before anything is asked, if it cannot be."""
    path = (folder or Path(name)) / "profile.yaml"
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            f"not a name for a profile: {name!r}",
            where="loadkit profiles new",
            remedy="small letters, digits and hyphens; -o FOLDER says where it goes",
        )
    if path.exists():
        raise InputError("is there already", where=path, remedy=_OTHER_PLACE)
    return path


def written(name: str, answers: Answers, folder: Path | None) -> tuple[Path, Profile]:
    """Write `folder/profile.yaml` (a folder of the profile's name unless given), checked first as any
    profile is. InputError if it is there already, or an answer does not fit."""
    import yaml
    from pydantic import ValidationError

    path = check_free(name, folder)
    data = draft(name, answers)
    try:
        made = Profile.model_validate(data)
    except ValidationError as error:
        raise refusal(error, Profile, path, ()) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    except FileExistsError as error:
        raise InputError("is there already", where=path, remedy=_OTHER_PLACE) from error
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=path) from error
    return path, made
