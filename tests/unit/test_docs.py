"""The documents name only what there is: verbs, options, make's targets, files, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer import main as typer_main

from loadkit.cli import app as command_line

ROOT = Path(__file__).parents[2]
DOCS = [
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name != "CHANGELOG.md"  # what was true once
]
ENDS = ("|", ">", ">>", "&&", ";", "&")
CODE = re.compile(r"```.*?\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(loadkit [^`]+)`")


@pytest.fixture(scope="module")
def verbs() -> dict[str, Any]:
    command_line._register()
    group: Any = typer_main.get_command(command_line.app)
    return dict(group.commands)


def command_lines(text: str) -> list[list[str]]:
    """The words after `loadkit` of every command in the document's code, prompts left out."""
    indented = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    code = "\n".join([*CODE.findall(text), indented]).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in code.splitlines()]
    return [words(line) for line in lines if line.startswith("loadkit ")]


def words(line: str) -> list[str]:
    """A shell's words of one command, `loadkit` and what follows the command left out."""
    found = shlex.split(line, comments=True)
    end = next((n for n, word in enumerate(found) if word in ENDS), len(found))
    return found[1:end]


def test_commands_are_found_in_code_and_told_from_what_follows_them() -> None:
    text = "```console\n$ loadkit gate --a 'b c' \\\n    -o d | head   # why\nloadkit: no\n```\n"
    assert command_lines(text) == [["gate", "--a", "b c", "-o", "d"]]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_parses(path: Path, verbs: dict[str, Any]) -> None:
    for verb, *arguments in command_lines(path.read_text("utf-8")):
        assert verb in verbs, f"no such verb: {verb}"
        verbs[verb].make_context(verb, arguments)  # raises a usage error, runs nothing


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_named_in_a_sentence_exists(path: Path, verbs: dict[str, Any]) -> None:
    for command in INLINE.findall(path.read_text("utf-8")):
        verb, *arguments = command.split()[1:]
        if verb.startswith("-"):
            continue
        assert verb in verbs, f"no such verb: {command}"
        known = {
            name for option in verbs[verb].params for name in (*option.opts, *option.secondary_opts)
        }
        options = {
            word.split("=")[0].strip("[]") for word in arguments if word.startswith(("-", "[-"))
        }
        assert options <= known | {"--help"}, command


def test_every_target_of_make_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in DOCS:
        named = re.findall(
            r"`make ([a-z]+)`|^\$ make ([a-z]+)", path.read_text("utf-8"), re.MULTILINE
        )
        assert {one or other for one, other in named} <= targets, path.name


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), target


def test_every_path_in_the_map_exists() -> None:
    """`loadkit/core` as it stands; a bare `trace.py` in its row's folder or beside that."""
    for line in (ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines():
        folders = [ROOT]
        for name in re.findall(r"`([\w./]+)`", line):
            if not ("/" in name or name.endswith(".py")):
                continue
            found = [each / name for each in folders if (each / name).exists()]
            assert found, f"ARCHITECTURE.md names {name}, which is not there"
            folders += [found[0], found[0].parent]


def test_the_map_has_a_row_for_every_room() -> None:
    rows = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = [path.parent.name for path in (ROOT / "loadkit").glob("*/__init__.py")]
    assert len(rooms) > 10
    assert [room for room in sorted(rooms) if f"`loadkit/{room}" not in rows] == []


def test_every_test_that_security_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 50
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"
