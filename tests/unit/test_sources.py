"""What the sources never do, whatever they read: data that runs as code, YAML read loosely."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for room in ("loadkit", "reference_server") for path in (ROOT / room).rglob("*.py")]
FORBIDDEN = {
    *("pickle", "marshal", "shelve", "dill", "joblib"),
    *("eval", "exec", "os.system", "os.popen", "extractall", "torch.load", "jinja2.Template"),
    "trust_remote_code=True",
    "shell=True",
}


def uses(tree: ast.AST) -> Iterator[str]:
    """Modules imported, functions called (`f`, `a.f` and the last word), and flags that are set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name
            if isinstance(node.func, ast.Attribute) and node.func.attr == "extractall":
                yield "extractall"
            yield from (f"{each.arg}={ast.unparse(each.value)}" for each in node.keywords)


def used_in(path: Path) -> set[str]:
    return set(uses(ast.parse(path.read_text("utf-8"))))


def test_nothing_that_runs_data_as_code_is_used() -> None:
    assert len(SOURCES) > 150
    assert {str(path): found for path in SOURCES if (found := used_in(path) & FORBIDDEN)} == {}


@pytest.mark.parametrize(
    "line", ["import pickle", "eval('1')", "run(x, shell=True)", "archive.extractall(where)"]
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert set(uses(ast.parse(line))) & FORBIDDEN


def test_yaml_is_read_in_one_place_only() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if used_in(path) & {"yaml.load", "yaml.safe_load", "yaml.load_all", "yaml.safe_load_all"}
    }
    assert readers == {"loadkit/profiles/yaml_file.py"}
