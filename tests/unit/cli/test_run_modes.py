"""`loadkit run` before anything is sent: what it needs, refuses, and finds beside the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Call

from loadkit.cli.run_modes import token
from loadkit.locust_users.recover import tell_of_abandoned
from loadkit.locust_users.settings import WorkFolder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "PROFILE, --url URL, -o DIR: missing"),
        (("-o", "x"), "PROFILE, --url URL: missing"),
        (("--worker",), "$LOADKIT_TOKEN: not set"),
        (("-o", "x", "--export", "csv"), "--export: no format 'csv' (one of aiperf, vllm)"),
        (("-o", "x", "--recover", "nowhere"), "nowhere: no working folder of a run"),
    ],
)
def test_what_is_missing_or_wrong_is_an_input_error(
    loadkit: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOADKIT_TOKEN", raising=False)
    answer = loadkit("run", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_cut_off_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = tmp_path / ".old.work-abc"
    left.mkdir()
    tell_of_abandoned(tmp_path)
    assert f"loadkit run --recover {left} -o DIR" in capsys.readouterr().err
    held = WorkFolder(left)
    held.hold()
    tell_of_abandoned(tmp_path)
    tell_of_abandoned(tmp_path / "nowhere")
    assert capsys.readouterr().err == ""


def test_a_token_of_ones_own_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOADKIT_TOKEN", "canary")
    assert token(("10.0.0.5", 5557), 2) == "canary"
    assert "canary" not in capsys.readouterr().err
    monkeypatch.delenv("LOADKIT_TOKEN")
    made = token(("10.0.0.5", 5557), 2)
    assert f"LOADKIT_TOKEN={made} loadkit run --worker" in capsys.readouterr().err


def test_a_malformed_url_is_told_before_anything_is_planned(loadkit: Call, tmp_path: Path) -> None:
    """The profile is not there either: what is said shows what was looked at first."""
    for verb in ("run", "prelaunch"):
        answer = loadkit(verb, "no-profile", "--url", "localhost:8000", "-o", tmp_path / "out")
        assert answer.code == 2
        assert "not an http:// or https:// URL" in answer.err
