"""Corpora: own text, the same bytes for the same seed, rich enough not to repeat."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from loadkit import corpora
from loadkit.core.errors import InputError


@pytest.mark.parametrize("name", corpora.names())
def test_every_bundled_corpus_gives_the_bytes_its_card_declares(name: str) -> None:
    corpus = corpora.load(name)
    corpus.check()
    assert corpus.sample_sha256() == corpus.card.sample_sha256
    assert corpus.statistics() == corpus.card.statistics
    assert corpus.card.licence == "Apache-2.0"
    assert (corpora.data_root("corpora") / name / "README.md").is_file()


@pytest.mark.parametrize("name", corpora.names())
def test_every_symbol_of_a_bundled_grammar_expands_without_a_slot_left(name: str) -> None:
    corpus, rng = corpora.load(name), Random(5)
    for symbol in corpus.grammar:
        for _ in range(50):
            text = corpus.expand(symbol, rng)
            assert "{" not in text
            assert "}" not in text


def test_ten_thousand_messages_of_five_sentences_are_all_different() -> None:
    corpus, rng = corpora.load("assistant-chat"), Random(11)
    assert len({corpus.user_message(rng, 5) for _ in range(10_000)}) == 10_000


def grammar_folder(tmp_path: Path, line: str) -> str:
    source = corpora.data_root("corpora") / "assistant-chat"
    (tmp_path / "corpus.yaml").write_text((source / "corpus.yaml").read_text("utf-8"), "utf-8")
    grammar = (source / "grammar.yaml").read_text("utf-8") + line + "\n"
    (tmp_path / "grammar.yaml").write_text(grammar, "utf-8")
    return str(tmp_path)


def test_an_unknown_symbol_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"extra: unknown symbol 'nothing'"):
        corpora.load(grammar_folder(tmp_path, 'extra: ["a {nothing}"]'))


def test_a_symbol_that_expands_into_itself_ends_in_an_error(tmp_path: Path) -> None:
    corpus = corpora.load(grammar_folder(tmp_path, 'loop: ["{loop}"]'))
    with pytest.raises(InputError, match="expands without end"):
        corpus.expand("loop", Random(1))


def test_a_corpus_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(InputError, match="assistant-chat"):
        corpora.load("no-such-corpus")


@pytest.mark.parametrize("name", corpora.names())
def test_a_corpus_names_what_it_has_texts_for_and_makes_them(name: str) -> None:
    corpus = corpora.load(name)
    assert {"message", "system"} <= set(corpus.kinds())
    for what in corpora.FORMS:
        if what in corpus.kinds():
            assert len(corpus.text(what, Random(1), 30)) > 400  # type: ignore[arg-type]


def test_tools_of_a_set_have_different_names_and_a_schema_each() -> None:
    corpus, rng = corpora.load("coding-agent"), Random(2)
    tools = [corpus.tool(rng, number)["function"] for number in range(40)]
    assert len({tool["name"] for tool in tools}) == 40
    for tool in tools:
        assert set(tool["parameters"]["required"]) <= set(tool["parameters"]["properties"])


def test_statistics_that_no_longer_hold_are_told(tmp_path: Path) -> None:
    folder = Path(grammar_folder(tmp_path, ""))
    card = (folder / "corpus.yaml").read_text("utf-8")
    (folder / "corpus.yaml").write_text(card.replace("distinct_words: ", "distinct_words: 9"))
    with pytest.raises(InputError, match=r"corpus\.yaml says otherwise"):
        corpora.load(str(folder)).check()


def test_a_text_keeps_to_the_language_of_its_opening() -> None:
    corpus, rng = corpora.load("world-languages"), Random(4)
    scripts = {"ru": ("а", "я"), "hi": ("ऀ", "ॿ"), "ar": ("ء", "ي"), "ja": ("ぁ", "ヿ")}
    seen = set()
    for _ in range(200):
        opening = corpus.opening("message", rng)
        language = str(opening.language)
        seen.add(language)
        text = corpus.text("message", rng, 4, opening)
        for other, (low, high) in scripts.items():
            assert any(low <= char <= high for char in text) == (other == language)
    assert seen == set(corpus.card.languages)


def test_a_corpus_may_not_be_or_hold_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    grammar_folder(folder, "")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="symbolic link"):
        corpora.load(str(tmp_path / "link"))
    grammar = folder / "grammar.yaml"
    grammar.rename(tmp_path / "elsewhere.yaml")
    grammar.symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(InputError, match=r"grammar\.yaml: a corpus may not be or hold"):
        corpora.load(str(folder))


def test_a_name_does_not_lead_out_of_the_bundled_corpora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such corpus"):
        corpora.load("../corpora/assistant-chat")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("x: []", "x: expected a list of texts"),
        ("x: 3", "x: expected a list of texts"),
        ('x: ["' + "y" * 4001 + '"]', "x: a line is longer than 4,000 characters"),
        ('x: ["{int:1-' + "9" * 5000 + '}"]', "x: a"),
        ('x: ["{int:1-' + "9" * 19 + '}"]', "x: a number has more than 18 digits"),
        ('x: ["{int:5-4}"]', "x: {int:5-4} has no number"),
    ],
)
def test_a_grammar_that_asks_for_too_much_is_refused(tmp_path: Path, lines: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        corpora.load(grammar_folder(tmp_path, lines))


def test_a_grammar_that_grows_tenfold_a_level_is_stopped(tmp_path: Path) -> None:
    levels = [
        f'bomb_{a}: ["{f"{{bomb_{b}}}" * 10}"]'
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    corpus = corpora.load(
        grammar_folder(
            tmp_path, "\n".join([*levels, 'bomb_j: ["x{bomb_k}"]', 'bomb_k: ["{int:1-2}"]'])
        )
    )
    with pytest.raises(InputError, match="more than 10,000 pieces"):
        corpus.expand("bomb_a", Random(1))


def test_two_processes_with_different_string_hashes_plan_the_same_bytes() -> None:
    """A set or a hash in an order would show here: a plan draws from every list of a grammar."""
    code = (
        "import hashlib, msgspec; from loadkit import profiles; "
        "from loadkit.traffic.build import build_plan; "
        "plans = [build_plan(profiles.load(n)) for n in ('mixed-production', 'multilingual-chat')]; "
        "print(hashlib.sha256(msgspec.json.encode(plans)).hexdigest())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(found[0]) == 65
    assert found[0] == found[1]
