"""The command line: light to start, every verb documented, errors are one line and an exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadkit import __version__
from loadkit.cli import app as app_module
from loadkit.cli.app import VERBS

ROOT = Path(__file__).parents[3]
HEAVY = ("locust", "gevent", "torch", "transformers", "numpy", "numba", "pyarrow", "rich", "httpx")
AFTER_HELP = """
import json, sys
from loadkit.cli import main
sys.argv = ["loadkit", "--help"]
try:
    main()
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def loadkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_HELP], capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(done.stderr)
    assert code == 0
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_stands_in_the_readme(verb: str) -> None:
    done = loadkit(verb, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()[2].strip()) > 20, "the first line says what it does"
    assert f"loadkit {verb}" in (ROOT / "README.md").read_text("utf-8")


def test_a_mistake_is_one_line_on_stderr_and_exit_code_2() -> None:
    done = loadkit("profiles", "no-such-profile")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("loadkit: no-such-profile: no such profile (")
    assert len(done.stderr.splitlines()) == 1


def test_a_fault_of_ours_is_never_taken_for_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(app_module, "app", broken)
    monkeypatch.setattr(app_module, "_register", lambda: None)
    with pytest.raises(SystemExit) as caught:
        app_module.main()
    assert caught.value.code == 70
    assert "ZeroDivisionError: ours" in capsys.readouterr().err


def test_the_version_is_printed() -> None:
    done = loadkit("--version")
    assert (done.returncode, done.stdout) == (0, f"loadkit {__version__}\n")


def test_serve_tells_a_missing_model_folder_before_it_loads_anything() -> None:
    done = loadkit("serve", "--model", "./no-such-model")
    assert done.returncode == 2
    assert done.stderr == (
        "loadkit: ./no-such-model: no such folder (give that of a model or tokenizer)\n"
    )


def test_serve_says_how_a_client_names_its_session() -> None:
    text = loadkit("serve", "--help").stdout
    assert "x-session-id" in text
    assert "metadata.session_id" in text


def test_the_overview_cuts_no_verbs_help() -> None:
    wide = subprocess.run(
        [sys.executable, "-m", "loadkit", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "80"},
        check=True,
    )
    assert "..." not in wide.stdout.split("Commands:")[1]
    assert all(f"  {verb} " in wide.stdout for verb in VERBS)


def test_an_unknown_option_is_exit_code_2() -> None:
    assert loadkit("analyze", "--no-such-option").returncode == 2


def test_profiles_are_listed_as_json() -> None:
    listed = json.loads(loadkit("profiles", "--json").stdout)
    assert {each["name"]: each["kind"] for each in listed} == {
        "chat-assistant": "conversation",
        "replay-smoke": "replay",
    }


def test_a_corpus_whose_grammar_was_changed_is_told(tmp_path: Path) -> None:
    source = ROOT / "corpora" / "assistant-chat"
    (tmp_path / "corpus.yaml").write_text((source / "corpus.yaml").read_text("utf-8"), "utf-8")
    grammar = (source / "grammar.yaml").read_text("utf-8").replace("Amira", "Amina")
    (tmp_path / "grammar.yaml").write_text(grammar, "utf-8")
    done = loadkit("corpora", str(tmp_path))
    assert done.returncode == 2
    assert "the sample's sha256 is" in done.stderr
