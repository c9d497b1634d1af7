"""docs/profiles.md: its examples load and can be planned, and no key is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import make_tokenizer

from loadkit import profiles
from loadkit.core.tokenizer import Tokenizer
from loadkit.planning import counter_for
from loadkit.profiles import Profile
from loadkit.profiles.part import Part
from loadkit.traffic.build import build_plan

TEXT = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text("utf-8")
WHOLE, *CHANGES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
LOG = [{"messages": [{"role": "user", "content": f"{n} colours?"}], "timestamp": n} for n in (1, 5)]


def example(folder: Path, change: str) -> Profile:
    """The document's whole profile with the sections of one of its other blocks."""
    data = yaml.safe_load(WHOLE) | yaml.safe_load(change)
    if "stages" in data["arrivals"]:
        data["traffic"]["sessions"] = 40  # they need as many as arrive in them
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(data))
    return profiles.load(str(path))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(make_tokenizer(), "tiny")


@pytest.mark.parametrize("change", ["{}", *CHANGES], ids=lambda text: " ".join(text.split())[:40])
def test_an_example_of_the_document_can_be_planned(
    change: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG))
    made = example(tmp_path, change)
    assert build_plan(made, counter_for(made, tokenizer)).num_requests > 0


def parts(section: type[Part]) -> Iterator[type[Part]]:
    for each in section.__subclasses__():
        yield each
        yield from parts(each)


def test_every_key_of_a_profile_stands_in_the_document() -> None:
    keys = {
        field.alias or name for each in parts(Part) for name, field in each.model_fields.items()
    }
    assert {key for key in keys if not re.search(rf"\b{key}\b", TEXT)} == set()


def test_every_kind_loop_process_and_choice_stands_in_the_document() -> None:
    """Each value that a key of the schema may have, if it is one of several words."""
    choices = set(_words(profiles.schema())) - {"loadkit.profile/1"}
    assert {"conversation", "gamma", "salt", "first_n"} <= choices
    assert {word for word in choices if not re.search(rf"\b{word}\b", TEXT)} == set()


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
        yield from [schema["const"]] if isinstance(schema.get("const"), str) else []
        for value in schema.values():
            yield from _words(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _words(value)
