"""The command line: light to start, every verb documented, errors are one line and an exit code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import Call

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


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_HELP], capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(done.stderr)
    assert code == 0
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_stands_in_the_readme(loadkit: Call, verb: str) -> None:
    code, out, _ = loadkit(verb, "--help")
    assert code == 0
    assert len(out.splitlines()[2].strip()) > 20, "the first line says what it does"
    assert f"loadkit {verb}" in (ROOT / "README.md").read_text("utf-8")


def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(loadkit: Call) -> None:
    code, out, err = loadkit("profiles", "no-such-profile")
    assert (code, out) == (2, "")
    assert err.startswith("loadkit: no-such-profile: no such profile (")
    assert len(err.splitlines()) == 1


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
    command = [sys.executable, "-m", "loadkit", "--version"]
    assert subprocess.check_output(command, text=True) == f"loadkit {__version__}\n"


def test_serve_tells_a_missing_model_folder_before_it_loads_anything(loadkit: Call) -> None:
    assert loadkit("serve", "--model", "./no-such-model") == (
        2,
        "",
        "loadkit: ./no-such-model: no such folder (give that of a model or tokenizer)\n",
    )


def test_serve_says_how_a_client_names_its_session(loadkit: Call) -> None:
    text = loadkit("serve", "--help").out
    assert "x-session-id" in text
    assert "metadata.session_id" in text


def test_the_overview_cuts_no_verbs_help(loadkit: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = loadkit("--help").out
    assert "..." not in wide.split("Commands:")[1]
    assert all(f"  {verb} " in wide for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_speaks_without_python_types(loadkit: Call, verb: str) -> None:
    assert re.findall(r"<(?:str|int|float|list|Path|bool).*?>", loadkit(verb, "--help").out) == []


def test_an_unknown_option_is_exit_code_2(loadkit: Call) -> None:
    assert loadkit("analyze", "--no-such-option").code == 2


def test_profiles_are_listed_as_json(loadkit: Call) -> None:
    listed = json.loads(loadkit("profiles", "--json").out)
    kinds = {each["name"]: each["kind"] for each in listed}
    assert kinds["chat-assistant"] == "conversation"
    assert kinds["replay-smoke"] == "replay"
    assert kinds["mixed-production"] == "mixture"


def test_a_profile_is_shown_as_a_profile_that_loads_again(loadkit: Call, tmp_path: Path) -> None:
    shown = loadkit("profiles", "show", "batch-eval", "--set", "seed=7").out
    (tmp_path / "profile.yaml").write_text(shown, "utf-8")
    again = json.loads(loadkit("profiles", tmp_path, "--json").out)
    assert again["profile"]["seed"] == 7
    assert (again["plan"]["requests"], again["plan"]["wraps"]) == (300, 2)
    assert "#   wraps: 2" in shown


def test_a_plan_that_needs_a_tokenizer_is_shown_with_what_it_needs(loadkit: Call) -> None:
    tokens = "traffic.prompt_tokens={distribution: constant, mean: 9, max: 9, source: test}"
    none = "traffic.message_sentences=null"
    said = loadkit("profiles", "single-turn-organic", "--set", tokens, "--set", none).out
    assert "not_made: traffic: lengths in tokens need the served tokenizer" in said


def test_the_schema_of_profiles_names_every_section_and_describes_it(loadkit: Call) -> None:
    schema = json.loads(loadkit("profiles", "schema").out)
    assert {"traffic", "arrivals", "request", "priming", "slo"} <= set(schema["properties"])
    assert schema["$defs"]["OpenLoop"]["properties"]["burstiness"]["description"]


def test_profiles_with_words_of_no_meaning_says_what_it_takes(loadkit: Call) -> None:
    code, _, err = loadkit("profiles", "hide", "x")
    assert code == 2
    assert "`show NAME` or `schema`" in err


def test_a_corpus_whose_grammar_was_changed_is_told(loadkit: Call, tmp_path: Path) -> None:
    source = ROOT / "corpora" / "assistant-chat"
    (tmp_path / "corpus.yaml").write_text((source / "corpus.yaml").read_text("utf-8"), "utf-8")
    grammar = (source / "grammar.yaml").read_text("utf-8").replace("Amira", "Amina")
    (tmp_path / "grammar.yaml").write_text(grammar, "utf-8")
    code, _, err = loadkit("corpora", tmp_path)
    assert code == 2
    assert "the sample's sha256 is" in err


def test_ctrl_c_where_no_verb_says_more_is_one_line_and_130(
    loadkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loadkit.corpora.names", interrupted)
    answer = loadkit("corpora")
    assert (answer.code, answer.err.strip()) == (130, "loadkit: interrupted")
