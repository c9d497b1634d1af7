"""What a stranger wrote into a log, a profile or a file name cannot command the user's terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Answer, Call

from loadkit.corpora import Corpus, CorpusCard
from loadkit.profiles import find, load, load_yaml

# Retitle the window, ring, turn the text round, erase the line, open a link; Rich's markup.
EVIL = "\x1b]0;owned\x07\u202e\r\x1b[2K\x9b31m[red]x[/red]\n::error::x"
ROWS = [
    {"timestamp": n, "input_length": 1025, "hash_ids": [1, 2, 3], "session_id": EVIL}
    for n in range(3)
]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def is_harmless(answer: Answer) -> bool:
    """Whether every line is printable and none is a command to the reader of a CI's log."""
    lines = (answer.out + answer.err).split("\n")
    return all(line.isprintable() and not line.startswith("::") for line in lines)


@pytest.mark.parametrize(
    "rows",
    [
        [{EVIL: 1}],
        [{"timestamp": EVIL, "input_length": 5, "hash_ids": [1]}],
        [{"type": EVIL, "hash_ids": EVIL}],
        [{"model": EVIL, "prompt": EVIL}],
        [ROWS[0], {EVIL: EVIL}],
    ],
)
@pytest.mark.parametrize("options", [(), ("--skip-bad",), ("--skip-bad", "--strict")])
def test_a_refused_log_is_one_harmless_line(
    loadkit: Call, tmp_path: Path, rows: list[Any], options: tuple[str, ...]
) -> None:
    answer = loadkit("analyze", write(tmp_path / "log.jsonl", *rows), *options)
    assert is_harmless(answer)
    if answer.code:
        assert answer.code == 2
        assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["analyze", "forecast"])
@pytest.mark.parametrize("options", [(), ("--json",), ("--skip-bad",)])
def test_a_log_with_hostile_names_is_read_harmlessly(
    loadkit: Call, tmp_path: Path, verb: str, options: tuple[str, ...]
) -> None:
    log = write(tmp_path / "log.jsonl", *ROWS, {EVIL: 1}) if "--skip-bad" in options else None
    answer = loadkit(verb, log or write(tmp_path / "log.jsonl", *ROWS), *options)
    assert answer.code in (0, 3)
    assert is_harmless(answer)


def test_the_examples_of_a_log_are_harmless(loadkit: Call, tmp_path: Path) -> None:
    rows = [
        {"session_id": EVIL, "prompt": [1, 2, 3, 4, 5, 6, 7, n], "timestamp": n} for n in (1, 2)
    ]
    answer = loadkit("analyze", write(tmp_path / "log.jsonl", *rows), "--block-size", 2)
    assert answer.code == 0
    assert is_harmless(answer)


def test_a_profile_with_hostile_names_is_refused_harmlessly(loadkit: Call, tmp_path: Path) -> None:
    for row in ({EVIL: 1}, {"name": EVIL}, {"traffic": {"kind": EVIL}}, {"traffic": {EVIL: 1}}):
        answer = loadkit("profiles", write(tmp_path / "p.yaml", row))
        assert answer.code == 2
        assert is_harmless(answer)


def test_hostile_file_names_and_options_are_repeated_harmlessly(
    loadkit: Call, tmp_path: Path
) -> None:
    name = EVIL.replace("/", "")
    for arguments in (
        ("analyze", write(tmp_path / name, {"x": 1})),
        ("analyze", tmp_path / f"no{name}"),
        ("analyze", write(tmp_path / "log.jsonl", *ROWS), "--format", EVIL),
        ("analyze", write(tmp_path / "log.jsonl", *ROWS), "--capacity", EVIL),
        ("profiles", EVIL),
        ("corpora", EVIL),
    ):
        answer = loadkit(*arguments)
        assert answer.code == 2
        assert is_harmless(answer)


def test_a_corpus_with_hostile_texts_is_shown_harmlessly(loadkit: Call, tmp_path: Path) -> None:
    required = ("system", "system_rule", "sentence", "question", "faq", "reply", "message_open")
    grammar = {symbol: [EVIL] for symbol in required}
    (tmp_path / "grammar.yaml").write_text(json.dumps(grammar))
    card = {"schema": "loadkit.corpus/1", "name": EVIL, "summary": EVIL, "licence": EVIL}
    card |= {"generator": "grammar", "seed": 1}
    given = CorpusCard.model_validate(card | {"sample_sha256": ""})
    sha = Corpus(given, grammar).sample_sha256()
    (tmp_path / "corpus.yaml").write_text(json.dumps(card | {"sample_sha256": sha}))
    answer = loadkit("corpora", tmp_path)
    assert (answer.code, answer.out.count("owned")) == (0, 3 + 3 * 4)
    assert is_harmless(answer)


def test_a_data_set_with_a_hostile_name_is_repeated_harmlessly(loadkit: Call) -> None:
    assert is_harmless(loadkit("corpora", f"hf:{EVIL}"))


def test_a_profile_with_a_hostile_summary_is_shown_harmlessly_and_loads_again(
    loadkit: Call, tmp_path: Path
) -> None:
    data = load_yaml(find("replay-smoke")) | {"summary": EVIL}
    shown = loadkit("profiles", write(tmp_path / "p.yaml", data))
    assert shown.code == 0
    assert is_harmless(shown)
    (tmp_path / "again.yaml").write_text(shown.out)
    assert load(str(tmp_path / "again.yaml")).summary == EVIL
