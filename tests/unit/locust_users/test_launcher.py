"""The launcher's decisions, and what the parent process and the locustfile may import."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from plans import OPEN, conversations, profile
from tiny_model import make_tokenizer

from loadkit.client.control import ModelCard
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.core.blocks import packed_tokens
from loadkit.core.errors import CannotMeasure, InputError, what_failed, what_to_do
from loadkit.core.tokenizer import load_tokenizer
from loadkit.locust_users.launcher import FirstAnswers, make_work_folder, run_profile
from loadkit.locust_users.preparing import (
    Choices,
    check_tokenizer,
    choose_block_size,
    choose_model,
    make_settings,
)
from loadkit.locust_users.process import LocustProcess
from loadkit.locust_users.settings import Settings, WorkFolder
from loadkit.locust_users.work import kept_if_unwritten
from loadkit.runs.folder import check_free
from loadkit.runs.journal import JournalWriter
from loadkit.runs.record import Record
from loadkit.traffic.plan import TrafficPlan

SETTINGS = Settings(url="http://h", model="m", loop="open")
ENDPOINT = Endpoint.parse("http://h")
HEAVY = ("torch", "transformers", "tokenizers", "datasets", "pandas")


def modules_after(code: str, **environment: str) -> set[str]:
    command = [
        sys.executable,
        "-c",
        f"{code}\nimport sys, json; print(json.dumps(list(sys.modules)))",
    ]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, check=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_parent_process_imports_neither_locust_nor_gevent() -> None:
    loaded = modules_after("import loadkit.locust_users.launcher")
    assert not {"locust", "gevent", *HEAVY} & loaded


def test_the_locustfile_imports_no_tokenizer_torch_or_datasets(tmp_path: Path) -> None:
    work = make_work_folder(tmp_path / "out", conversations(2, 1), SETTINGS)
    loaded = modules_after("import loadkit.locust_users.locustfile", LOADKIT_WORK=str(work.path))
    assert "locust" in loaded
    assert not set(HEAVY) & loaded


def test_user_classes_are_found_lazily() -> None:
    loaded = modules_after("import loadkit.locust_users as users; users.ReplayUser")
    assert "locust" in loaded
    assert not {*HEAVY, "pyarrow", "numba"} & loaded


@pytest.mark.parametrize(
    ("cards", "wanted", "chosen"),
    [
        ([ModelCard("a")], None, "a"),
        ([ModelCard("a"), ModelCard("b")], "b", "b"),
        ([], "unlisted", "unlisted"),
    ],
)
def test_the_model_is_the_only_one_or_the_one_asked_for(
    cards: list[ModelCard], wanted: str | None, chosen: str
) -> None:
    assert choose_model(cards, wanted, "http://h").id == chosen


@pytest.mark.parametrize(
    ("cards", "wanted", "message"),
    [
        ([], None, "lists no model at /v1/models"),
        ([ModelCard("a"), ModelCard("b")], None, "lists 2 models: a, b"),
        ([ModelCard("a")], "x", r"no model 'x' \(it lists: a\)"),
    ],
)
def test_an_unclear_model_is_an_input_error(
    cards: list[ModelCard], wanted: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_model(cards, wanted, "http://h")


@pytest.mark.parametrize(
    ("served", "given", "used"), [(16, None, 16), (16, 16, 16), (None, 32, 32), (None, None, None)]
)
def test_the_block_size_is_what_the_server_says_or_else_what_is_given(
    served: int | None, given: int | None, used: int | None
) -> None:
    assert choose_block_size(ModelCard("m", block_size=served), given, "http://h") == used


def test_another_block_size_than_the_servers_is_refused() -> None:
    with pytest.raises(InputError, match="blocks of 16 tokens, --block-size says 32"):
        choose_block_size(ModelCard("m", block_size=16), 32, "http://h")


def test_a_tokenizer_that_is_not_to_be_had_or_not_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        check_tokenizer(ModelCard("m"), str(tmp_path / "none"), "http://h")
    make_tokenizer().save_pretrained(str(tmp_path / "other"))
    check_tokenizer(ModelCard("m"), str(tmp_path / "other"), "http://h")
    with pytest.raises(InputError, match="the server has another tokenizer than"):
        check_tokenizer(
            ModelCard("m", tokenizer_fingerprint="ab"), str(tmp_path / "other"), "http://h"
        )


def test_there_are_never_more_processes_than_users_or_sessions() -> None:
    def processes(arrivals: dict[str, object], sessions: int) -> int:
        plan = conversations(sessions, 1)
        made = make_settings(
            profile(arrivals), plan, ENDPOINT.url, ModelCard("m"), Choices(processes=8)
        )
        return made.processes

    assert processes(OPEN, 3) == 3
    assert processes({"loop": "closed", "users": 2}, 20) == 2
    assert processes(OPEN, 20) == 8


def test_the_working_folder_is_private_and_beside_the_result(tmp_path: Path) -> None:
    work = make_work_folder(tmp_path / "out", conversations(2, 1), SETTINGS)
    assert work.path.parent == tmp_path
    assert stat.S_IMODE(work.path.stat().st_mode) == 0o700
    assert work.settings() == SETTINGS


def test_the_first_worker_sets_the_start_for_all(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    assert work.started() is None
    first = work.begin(1.0)
    assert work.begin(5.0) == first == work.started()


def test_an_existing_result_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="already exists"):
        run_profile(profile(), conversations(1, 1), url="http://127.0.0.1:9", out=tmp_path)


def test_a_link_and_the_current_folder_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were found at the end of the run, when its folder could not be put there."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(InputError, match=r"is a symbolic link to .*name that folder itself"):
            check_free(tmp_path / name)
    monkeypatch.chdir(tmp_path / "real")
    with pytest.raises(InputError, match=r"cannot be written: .*choose another folder"):
        make_work_folder(Path(), conversations(2, 1), SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "link", "real"]
    assert list((tmp_path / "real").iterdir()) == []


def test_trying_the_result_folder_leaves_it_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        make_work_folder(tmp_path / name, conversations(2, 1), SETTINGS)
    assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "new").exists()


def test_no_server_and_an_empty_plan_leave_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="is it running"):
        run_profile(profile(), conversations(1, 1), url="http://127.0.0.1:9", out=out)
    with pytest.raises(InputError, match="no sessions"):
        run_profile(profile(), TrafficPlan("corpus", ()), url="http://127.0.0.1:9", out=out)
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_in_the_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCUST_USERS", "99")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    work = make_work_folder(tmp_path / "out", conversations(2, 1), SETTINGS)
    process = LocustProcess(work, SETTINGS, key=Secret("sk-canary"))
    assert "sk-canary" not in " ".join(process._command)
    assert process._environment["LOADKIT_API_KEY"] == "sk-canary"
    assert not {"LOCUST_USERS", "OPENAI_API_KEY"} & set(process._environment)
    for file in work.path.rglob("*.json"):
        assert "sk-canary" not in file.read_text()


def test_a_result_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"out: cannot be written: .*choose another folder"):
        make_work_folder(tmp_path / "file" / "out", conversations(2, 1), SETTINGS)


def test_a_fault_of_ours_leaves_the_journals_and_says_where(tmp_path: Path) -> None:
    work = make_work_folder(tmp_path / "out", conversations(1, 1), SETTINGS)
    with pytest.raises(ZeroDivisionError) as caught, kept_if_unwritten(work, tmp_path / "out"):
        raise ZeroDivisionError
    assert str(work.path) in caught.value.__notes__[0]
    assert work.settings() == SETTINGS


@pytest.mark.parametrize(
    ("error", "raised"),
    [(InputError("already exists"), CannotMeasure), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_what_was_measured_outlives_a_taken_name_and_an_impatient_ctrl_c(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    work = make_work_folder(tmp_path / "out", conversations(1, 1), SETTINGS)
    work.begin(0.0)
    work.journal(0).write_bytes(b"")
    with pytest.raises(raised, match="--recover"), kept_if_unwritten(work, tmp_path / "out"):
        raise error
    assert work.journal(0).exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "/d/x"), r"/d/x: No space left .*\(ENOSPC\).*free"),
        (OSError(24, "Too many open files"), r"Too many open files \(EMFILE\), in .*ulimit -n"),
        (OSError(13, "Permission denied", "/d/x"), r"/d/x: Permission denied \(EACCES\).*right"),
        (OSError(2, "No such file", "a", None, "b"), r"a -> b: No such file \(ENOENT\).*removed"),
        (ConnectionResetError(104, "Connection reset"), r"Connection reset \(ECONNRESET\)"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_fault_of_the_system_is_told_by_its_own_name(
    tmp_path: Path, error: OSError, says: str
) -> None:
    """Not as a result folder that cannot be written, which it may not be about at all."""
    for measured in (False, True):
        work = make_work_folder(tmp_path / "out", conversations(1, 1), SETTINGS)
        if measured:
            work.begin(0.0)
            work.journal(0).write_bytes(b"")
        with (
            pytest.raises(CannotMeasure, match=says) as caught,
            kept_if_unwritten(work, tmp_path / "out"),
        ):
            raise error
        assert "cannot be written" not in str(caught.value)
        assert ("--recover" in str(caught.value)) == measured
        assert work.path.exists() == measured


def test_a_working_folder_that_is_removed_in_mid_run_is_named(tmp_path: Path) -> None:
    work = make_work_folder(tmp_path / "out", conversations(1, 1), SETTINGS)
    shutil.rmtree(work.path)
    with (
        pytest.raises(CannotMeasure, match=rf"{work.path}.*ENOENT.*removed meanwhile"),
        kept_if_unwritten(work, tmp_path / "out"),
    ):
        work.settings()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_journal(tmp_path: Path) -> None:
    (tmp_path / "j").symlink_to("/dev/full")
    record = Record(session="s", turn=0, name="n", worker=0, outcome="ok", intended_s=0.0)
    with JournalWriter(tmp_path / "j") as journal, pytest.raises(OSError) as caught:
        journal.append(record)
    assert what_failed(caught.value) == f"{tmp_path}/j: No space left on device (ENOSPC)"
    assert "free some space" in what_to_do(caught.value)


@pytest.mark.parametrize("error", [InputError("x"), KeyboardInterrupt()])
def test_what_is_no_fault_of_ours_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    work = make_work_folder(tmp_path / "out", conversations(1, 1), SETTINGS)
    with pytest.raises(type(error)), kept_if_unwritten(work, tmp_path / "out"):
        raise error
    assert list(tmp_path.iterdir()) == []


def answer(turn: int, ids: list[int], **more: object) -> Record:
    chat = [{"role": "user", "content": "the prefix cache"}]
    fields = {"prompt_token_ids": packed_tokens(ids), "prompt_tokens": len(ids), "messages": chat}
    return Record(
        session="s", turn=turn, name="chat", worker=0, outcome="ok", intended_s=0.0, **fields | more
    )


@pytest.mark.parametrize("by", ["token_ids", "usage"])
def test_another_template_is_told_once_and_while_the_journal_is_still_written(
    tmp_path: Path, by: str
) -> None:
    make_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    ours = load_tokenizer(tmp_path / "tokenizer").encode_chat(answer(0, [1]).messages)
    work = make_work_folder(tmp_path / "out", conversations(2, 1), SETTINGS)
    told: list[str] = []
    first = FirstAnswers(work, str(tmp_path / "tokenizer"), told.append)
    first.look()
    more = {} if by == "token_ids" else {"prompt_token_ids": None}
    with JournalWriter(work.journal(0)) as journal:
        journal.append(answer(0, ours, **more))
        first.look()
        assert told == []
        for turn in (1, 2):
            journal.append(answer(turn, [*ours[:2], 9, *ours[2:]], **more))
            first.look()
    (text,) = told
    assert text.startswith("the server's prompt has 1 token more than this tokenizer's template")
    assert ("first difference at token 2" in text) is (by == "token_ids")
    assert ("the prediction will be wrong" in text) is (by == "usage")


def test_without_a_tokenizer_there_is_nothing_to_compare(tmp_path: Path) -> None:
    work = make_work_folder(tmp_path / "out", conversations(2, 1), SETTINGS)
    with JournalWriter(work.journal(0)) as journal:
        journal.append(answer(0, [1, 2]))
    told: list[str] = []
    FirstAnswers(work, None, told.append).look()
    assert told == []
