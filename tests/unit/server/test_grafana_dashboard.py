"""The dashboard asks only for what the server exports, and shows all that is loadkit's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_calls import BODY, call, make_service
from prometheus_client.parser import text_string_to_metric_families

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "loadkit.json"
NAME = re.compile(r"\b(?:vllm|loadkit):[a-z0-9_]+")
SELECTOR = re.compile(r"((?:vllm|loadkit):[a-z0-9_]+)\{([^}]*)\}")
GROUPED = re.compile(r"sum by \(([^)]*)\) \((?:rate|increase)\(((?:vllm|loadkit):[a-z0-9_]+)")
PART = re.compile(r"_(bucket|sum|count|total|created)$")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return made


@pytest.fixture(scope="module")
def exported() -> Iterator[dict[str, set[str]]]:
    """Label names by sample name, as a scrape shows them after one request; the guard is on."""
    service = make_service()
    call(service, "POST", "/v1/completions", json=BODY)
    text = call(service, "GET", "/metrics", append_only="observe").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    yield found
    assert service.engine is not None
    service.engine.stop()


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def family(sample: str) -> str:
    return PART.sub("", sample)


def test_every_metric_it_names_is_exported(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    variables = [str(v["query"]) for v in dashboard["templating"]["list"]]
    named = {name for text in (*queries(dashboard), *variables) for name in NAME.findall(text)}
    assert len(named) > 25
    assert named <= exported.keys()


def test_every_label_it_selects_or_groups_by_is_there(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    for query in queries(dashboard):
        assert query.count("(") == query.count(")")
        assert len(SELECTOR.findall(query)) == len(NAME.findall(query)), "a metric of all models"
        for name, selected in SELECTOR.findall(query):
            assert set(re.findall(r"(\w+)=", selected)) <= exported[name]
        for labels, name in GROUPED.findall(query):
            assert set(labels.split(", ")) <= exported[name]


def test_a_legend_names_only_labels_that_are_left(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                by = re.findall(r"by \(([^)]*)\)", target["expr"])
                assert not by or any(label in labels.split(", ") for labels in by)


def test_it_shows_all_that_is_loadkits_own(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    shown = {family(name) for query in queries(dashboard) for name in NAME.findall(query)}
    own = {family(name) for name in exported if name.startswith("loadkit:")}
    assert len(own) > 10
    assert own <= shown


def test_panels_have_their_own_place_and_say_what_they_show(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["description"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
