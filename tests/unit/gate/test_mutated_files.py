"""run.json and expected.json with one thing wrong: an answer or one clear line, and never a PASS
for a file that lost something."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Call
from gate_builders import expected, folder, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_builders import make_run, production_records, word_tokenizer

from loadkit.core.errors import InputError
from loadkit.gate import decide_folder
from loadkit.gate.requests import read_requests

# What the gate reads; anything else in the files decides nothing.
RUN = run(left=0, profile={"name": "p", "slo": {"ttft_s": 1.0, "share": 0.9}})
FORECAST = expected()
UNREAD = {"url", "name", "miss", "confidence", "started_unix_s", "profile", "not_sent"}
# What says nothing more when it is not known: the run or the forecast may really not know it.
OPTIONAL = {"method", "needs", "low", "high"}
BROKEN = ["x", -1, -0.5, 1e308, 10**400, [], {}, True, "1", [None] * 3]


def places(data: Any, under: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        if key not in UNREAD:
            yield (*under, key)
            if isinstance(value, dict):
                yield from places(value, (*under, key))


def mutated(data: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with the value at a place replaced; `...` deletes it."""
    data = copy.deepcopy(data)
    node = data
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("mutated") / "run", RUN)


def verdict(at: Path, measured: dict[str, Any], forecast: dict[str, Any]) -> str:
    """PASS, FAIL, INCONCLUSIVE, or `refused` for an InputError; any other error is the test's."""
    (at / "run.json").write_text(json.dumps(measured), "utf-8")
    try:
        return decide_folder(at, forecast).verdict
    except InputError:
        return "refused"


def test_unchanged_files_pass(written: Path) -> None:
    assert verdict(written, RUN, FORECAST) == "PASS"


@pytest.mark.parametrize("place", list(places(RUN)), ids=".".join)
def test_a_run_that_lost_a_key_is_refused(written: Path, place: tuple[str, ...]) -> None:
    assert verdict(written, mutated(RUN, place, ...), FORECAST) == "refused"


@pytest.mark.parametrize("place", list(places(FORECAST)), ids=".".join)
def test_a_forecast_that_lost_a_key_never_passes(written: Path, place: tuple[str, ...]) -> None:
    found = verdict(written, RUN, mutated(FORECAST, place, ...))
    if place[-1] in OPTIONAL or place == ("organic_hit_rate", "estimate"):
        assert found in ("refused", "INCONCLUSIVE", "PASS")
    else:
        assert found in ("refused", "INCONCLUSIVE")


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(which=st.booleans(), data=st.data())
def test_a_value_of_another_kind_is_an_answer_or_one_error(
    written: Path, which: bool, data: st.DataObject
) -> None:
    whole = RUN if which else FORECAST
    place = data.draw(st.sampled_from(list(places(whole))))
    value = data.draw(st.sampled_from(BROKEN))
    changed = mutated(whole, place, value)
    pair = (changed, FORECAST) if which else (RUN, changed)
    assert verdict(written, *pair) in ("PASS", "FAIL", "INCONCLUSIVE", "refused")


@pytest.mark.parametrize("command", ["gate", "report", "compare"])
@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", '{"schema": "loadkit.run/2"}', '{"schema": "loadkit.run/1"}',
        '{"schema": 7}', '{"schema": "loadkit.run/1", "split": NaN}', '{"schema": null}',
        json.dumps(mutated(RUN, ("split",), None)), json.dumps(mutated(RUN, ("requests",), [])),
        json.dumps(mutated(RUN, ("profile",), ["x"])),
        json.dumps(mutated(RUN, ("endpoint",), "here")),
        json.dumps(mutated(RUN, ("reconciliation", "usage", "cached_tokens"), 10**30)),
    ],
)  # fmt: skip
def test_every_verb_refuses_a_damaged_run_in_one_line(
    loadkit: Call, tmp_path: Path, command: str, text: str
) -> None:
    good, bad = folder(tmp_path / "good", RUN), folder(tmp_path / "bad", RUN)
    (bad / "run.json").write_text(text, "utf-8")
    (tmp_path / "f.json").write_text(json.dumps(FORECAST), "utf-8")
    options: dict[str, list[Any]] = {
        "gate": ["--measured", bad, "--expected", tmp_path / "f.json"],
        "report": [bad, "-o", tmp_path / "r.html"],
        "compare": [good, bad],
    }
    done = loadkit(
        command, *options[command], *(["-o", tmp_path / "g.json"] if command == "gate" else [])
    )
    if "profile" in text and '["x"]' in text:  # not read by all: no traceback is enough
        assert done.code in (0, 1, 2, 3)
        return
    assert done.code == 2, (done.out, done.err)
    assert done.err.count("\n") == 1, done.err
    assert {path.name for path in tmp_path.iterdir()} == {"good", "bad", "f.json"}


def test_a_damaged_byte_in_requests_parquet_is_noticed(tmp_path: Path) -> None:
    """Pages carry checksums: a flipped bit is an error, or in a byte that says nothing here."""
    records = production_records(40, 3)
    tokenizer = word_tokenizer(tmp_path / "tokenizer")
    make_run(tmp_path / "run", records, tokenizer=tokenizer, capacity_blocks=1500)
    path = tmp_path / "run" / "requests.parquet"
    whole, before = path.read_bytes(), read_requests(tmp_path / "run")
    draw, noticed = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_requests(tmp_path / "run")
        except InputError:
            noticed += 1
            continue
        assert found.names == before.names
        for name, values in before.number.items():
            np.testing.assert_array_equal(found.number[name], values)
        for name in ("session", "outcome", "replay"):
            np.testing.assert_array_equal(getattr(found, name), getattr(before, name))
    assert noticed > 200
