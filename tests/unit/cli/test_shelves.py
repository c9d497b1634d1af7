"""`loadkit profiles` and `loadkit corpora` as a person meets them who has to choose."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from command import Call

from loadkit import profiles
from loadkit.traffic.build import build_plan

ANSWERS = ("--sessions", 12, "--rate", 2, "--requests", 4, "--shared-tokens", 400)


def test_the_list_has_what_a_person_chooses_by(loadkit: Call) -> None:
    lines = loadkit("profiles").out.splitlines()
    told = {line.split()[0]: line for line in lines[1:-2]}
    assert set(told) == set(profiles.names())
    assert told["replay-smoke"].split()[1:5] == ["replay", "60", "12k", "-"]
    assert " 30-65% " in told["rag"]
    listed = {each["name"]: each for each in json.loads(loadkit("profiles", "--json").out)}
    assert listed["batch-eval"]["requests"] == 300
    assert listed["batch-eval"]["expected"] is None
    assert listed["rag"]["expected"]["hit_rate_low"] == 0.3


@pytest.mark.parametrize(
    ("service", "kind"),
    [("chat", "conversation"), ("agent", "agent"), ("documents", "document"), ("single", "corpus")],
)
def test_a_new_profile_is_one_that_can_be_planned(
    loadkit: Call, tmp_path: Path, service: str, kind: str
) -> None:
    answers = list(ANSWERS)
    answers[5] = 1 if service == "single" else 4
    said = loadkit("profiles", "new", "ours", "--service", service, *answers, "-o", tmp_path)
    assert said.code == 0
    made = profiles.load(str(tmp_path))
    assert (made.name, made.traffic.kind, made.expected) == ("ours", kind, None)
    plan = build_plan(made)
    assert len(plan.sessions) == 12
    assert made.arrivals.rate_per_s == 2  # type: ignore[union-attr]
    if service == "chat":
        assert made.traffic.system_prompts.sentences == 20  # type: ignore[union-attr]
        assert made.traffic.turns.mean == 4  # type: ignore[union-attr]


def test_what_is_not_given_is_asked_for(
    loadkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("documents\n30\n\n2\n1000\n"))
    assert loadkit("profiles", "new", "ours", "-o", tmp_path).code == 0
    made = profiles.load(str(tmp_path))
    assert made.traffic.sessions == 30  # type: ignore[union-attr]
    assert made.traffic.questions.mean == 2  # type: ignore[union-attr]
    assert made.arrivals.rate_per_s == 0.5  # type: ignore[union-attr]
    assert made.traffic.documents.sentences.median == 50  # type: ignore[union-attr]


def test_an_answer_that_does_not_fit_is_asked_for_again_at_once(
    loadkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ("chatbot", "chat", "many", "-5", "20", "nan", "0", "2", "", "99999999", "400")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(answers) + "\n"))
    said = loadkit("profiles", "new", "ours", "-o", tmp_path)
    assert said.code == 0
    assert "one of chat, agent, documents, single, please" in said.err
    assert said.err.count("a whole number from 1 to 1,000,000, please") == 2
    made = profiles.load(str(tmp_path))
    assert made.traffic.sessions == 20  # type: ignore[union-attr]
    assert made.arrivals.rate_per_s == 2  # type: ignore[union-attr]
    assert made.traffic.turns.mean == 3  # type: ignore[union-attr]
    assert made.traffic.system_prompts.sentences == 20  # type: ignore[union-attr]


def test_a_name_that_cannot_be_is_refused_before_anything_is_asked(
    loadkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n" * 5))
    for words in (("Bad Name",), ()):
        said = loadkit("profiles", "new", *words, "-o", tmp_path / "new")
        assert said.code == 2
        assert "What does it serve" not in said.err


def test_ctrl_c_at_a_question_is_an_interruption_and_writes_nothing(
    loadkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.StringIO):
        def readline(self, *_: object) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    said = loadkit("profiles", "new", "ours", "-o", tmp_path / "new")
    assert said.code == 130
    assert said.err.endswith("loadkit: interrupted; nothing was written\n")
    assert not (tmp_path / "new").exists()


def test_a_misspelt_profile_is_met_with_the_one_that_was_meant(loadkit: Call) -> None:
    assert "did you mean chat-assistant?" in loadkit("profiles", "chat-asistant").err


def test_where_nobody_answers_nothing_is_written(
    loadkit: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    said = loadkit("profiles", "new", "ours", "-o", tmp_path / "new")
    assert said.code == 2
    assert "no answer" in said.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        ("../up", (), "not a name for a profile: '../up'"),
        ("ours", ("--rate", "0"), "arrivals.rate_per_s: must be at least"),
        ("ours", ("--service", "post"), "unknown service 'post'"),
        ("ours", ("--service", "single"), "a single question is one request"),
    ],
)
def test_an_answer_that_does_not_fit_is_named_and_nothing_is_written(
    loadkit: Call, tmp_path: Path, name: str, changed: tuple[str, ...], says: str
) -> None:
    arguments = ("--service", "chat", *ANSWERS, *changed, "-o", tmp_path / "new")
    said = loadkit("profiles", "new", name, *arguments)
    assert said.code == 2
    assert says in said.err
    assert not (tmp_path / "new").exists()


def test_a_profile_that_is_there_is_not_overwritten(loadkit: Call, tmp_path: Path) -> None:
    arguments = ("profiles", "new", "ours", "--service", "chat", *ANSWERS, "-o", tmp_path)
    assert loadkit(*arguments).code == 0
    before = (tmp_path / "profile.yaml").read_bytes()
    said = loadkit(*arguments)
    assert said.code == 2
    assert "is there already" in said.err
    assert (tmp_path / "profile.yaml").read_bytes() == before


def test_options_of_new_are_refused_elsewhere(loadkit: Call) -> None:
    assert loadkit("profiles", "replay-smoke", "--rate", "3").code == 2


def test_public_sets_are_listed_with_their_licences(loadkit: Call) -> None:
    out = loadkit("corpora").out
    assert "hf:allenai/WildChat-1M\n    ODC-BY." in out
    assert "Gated" in loadkit("corpora", "hf:lmsys/lmsys-chat-1m").out


def test_a_licence_is_shown_before_a_set_is_read(
    loadkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError("no network in tests")

    monkeypatch.setattr("loadkit.traces.tables._load", no_network)
    keys = ("traffic.corpus=null", "traffic.log=hf:allenai/WildChat-1M", "traffic.format=chats")
    settings = [
        word for key in (*keys, "traffic.message_sentences=null") for word in ("--set", key)
    ]
    for arguments in (
        ("profiles", "replay-smoke", *settings),
        ("run", "replay-smoke", "--url", "http://127.0.0.1:9", "-o", "x", *settings),
        ("analyze", "hf:allenai/WildChat-1M", "--format", "chats"),
        ("prelaunch", "replay-smoke", "--log", "hf:allenai/WildChat-1M", "-o", "x", "--dry-run"),
    ):
        first = loadkit(*arguments).err.splitlines()[0]
        assert first.startswith("loadkit: hf:allenai/WildChat-1M: licence ODC-BY")
