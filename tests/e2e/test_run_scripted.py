"""Whole runs through Locust against the scripted server, which knows what it was asked."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from contract_names import documented
from plans import OPEN, conversations, profile, session
from scripted import scripted_server
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from waiting import GENEROUS_S, until

from loadkit.client.secret import Secret
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.locust_users import launcher
from loadkit.locust_users.preparing import Choices
from loadkit.locust_users.settings import WorkFolder
from loadkit.runs.folder import gather
from loadkit.runs.journal import read_journal
from loadkit.runs.record import Record
from loadkit.traffic.plan import SessionPlan, TrafficPlan, Turn

pytestmark = pytest.mark.e2e
SUPPORT = Path(__file__).parents[1] / "support"
CLOSED = {"loop": "closed", "users": 4}


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Records of the run, read from its journals just before the folder is made of them."""
    kept: list[Record] = []
    finish = launcher.finish_run

    def finish_and_keep(work: Path, out: Path, context: Any) -> dict[str, Any]:
        kept.extend(gather(work).records)
        return finish(work, out, context)

    monkeypatch.setattr(launcher, "finish_run", finish_and_keep)
    return kept


@pytest.mark.parametrize(
    ("arrivals", "processes"), [(OPEN, 1), (OPEN, 2), (CLOSED, 1), (CLOSED, 2)]
)
def test_every_planned_request_is_sent_once_with_its_history(
    tmp_path: Path, records: list[Record], arrivals: dict[str, Any], processes: int
) -> None:
    """8 sessions of 3 turns: prompts of 5 words, replies of 4; turn t has 5(t+1) + 4t words."""
    out = tmp_path / "out"
    steps: list[tuple[int, int]] = []
    with scripted_server(tmp_path) as server:
        run = launcher.run_profile(
            profile(arrivals),
            conversations(8, 3),
            url=server.url,
            out=out,
            choices=Choices(processes=processes),
            on_progress=lambda done, total: steps.append((done, total)),
        )
        truth = server.truth_of(24)
    assert run["status"] == "ok"
    assert run["requests"]["ok"] == run["requests"]["scheduled"] == 24
    sent = Counter((row["session"], len(row["messages"])) for row in truth)
    assert sent == {(f"s{i}", n): 1 for i in range(8) for n in (1, 3, 5)}
    replies = {m["content"] for row in truth for m in row["messages"] if m["role"] == "assistant"}
    assert replies == {"w0 w1 w2 w3 "}
    assert run["totals"]["prompt_tokens"] == 8 * (5 + 14 + 23)
    assert run["totals"]["cached_tokens"] == sum(row["cached"] for row in truth)
    assert run["reconciliation"]["usage_vs_prometheus"]["agrees"] is True
    assert {record.worker for record in records} == set(range(processes))
    assert steps[-1] == (24, 24)
    documented(json.loads((out / "run.json").read_text("utf-8")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "truth.jsonl"]


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("none", "witnesses agree: usage "),
        ("strings", "one witness only, Prometheus "),
        ("frozen", "because the server's counters stand still"),
    ],
)
def test_a_server_that_misreports_its_cache_is_found_out_by_the_runs_own_readings(
    tmp_path: Path, lie: str, says: str
) -> None:
    with scripted_server(tmp_path, "--lie", lie) as server:
        run = launcher.run_profile(
            profile(), conversations(8, 3), url=server.url, out=tmp_path / "out"
        )
    found = run["reconciliation"]
    assert says in found["says"]
    assert found["counters"]["silent"] is (lie == "frozen")
    assert found["impossible"]["unreadable"] == (24 if lie == "strings" else 0)
    moments = pq.read_table(tmp_path / "out" / "server_metrics.parquet")["moment"].to_pylist()
    assert {"before", "after"} <= set(moments)


def test_times_in_the_records_are_those_of_the_server(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open loop, first turns at 0, 0.02, 0.04 ... seconds; nothing is measured too early."""
    starts: list[float] = []
    begun = WorkFolder.started

    def started(work: WorkFolder) -> Any:
        start = begun(work)
        if start is not None:
            starts.append(start.monotonic_s)
        return start

    monkeypatch.setattr(WorkFolder, "started", started)
    with scripted_server(tmp_path) as server:
        launcher.run_profile(profile(), conversations(10, 2), url=server.url, out=tmp_path / "out")
        truth = {(row["session"], len(row["messages"]) // 2): row for row in server.truth_of(20)}
    assert len(records) == len(truth) == 20
    for record in records:
        row = truth[record.session, record.turn]
        assert record.sent_s is not None
        assert record.first_token_s is not None
        assert record.sent_s + starts[-1] < row["read"]
        assert row["first"] <= record.first_token_s + starts[-1] < row["first"] + 0.25
        assert record.sent_s >= record.intended_s
        if record.turn == 0:
            assert record.intended_s == pytest.approx(0.02 * int(record.session[1:]))


def test_a_tokenizer_that_is_not_the_servers_is_told_of_while_the_run_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server counts words; this template writes two more in front of each prompt."""
    words = Tokenizer(models.WordLevel({"?": 0, "x": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "x x {% for m in messages %}{{ m.content }} {% endfor %}"
    fast = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)
    fast.save_pretrained(str(tmp_path / "tokenizer"))
    plan = TrafficPlan("conversation", (session("s", "one", "two", think_s=3.0),))
    done: list[int] = []
    told_after: list[int] = []

    def tell(text: str) -> None:
        launcher.say(text)
        told_after.append(done[-1])

    with scripted_server(tmp_path) as server:
        run = launcher.run_profile(
            profile(),
            plan,
            url=server.url,
            out=tmp_path / "out",
            choices=Choices(tokenizer=str(tmp_path / "tokenizer")),
            on_progress=lambda so_far, _: done.append(so_far),
            tell=tell,
        )
    assert told_after == [1]
    said = "the server's prompt has 2 tokens fewer than this tokenizer's template gives (1 and 3)"
    assert said in capfd.readouterr().err
    assert (run["template"]["different"], run["template"]["by"]) == (2, "usage")


def test_think_time_passes_between_turns(tmp_path: Path, records: list[Record]) -> None:
    plan = TrafficPlan("conversation", (session("s", "one", "two", think_s=0.3),))
    with scripted_server(tmp_path) as server:
        launcher.run_profile(profile(), plan, url=server.url, out=tmp_path / "out")
    first, second = records
    assert first.completed_s is not None
    # Each time is a difference of two clock readings, so equal is equal but for rounding.
    assert second.intended_s - first.completed_s >= 0.3 - 1e-9


def user(text: str, **fields: Any) -> Turn:
    return Turn(({"role": "user", "content": text},), 4, **fields)


def test_agents_retries_compaction_and_users_who_leave_are_sent_as_planned(
    tmp_path: Path, records: list[Record]
) -> None:
    """Tokens at 20, 25, 30 and 35 ms; the one who leaves does so after two or three of them."""
    agents = tuple(
        SessionPlan(name, 0.0, (user(name), user("more")), "agent", inherits_history=True)
        for name in ("x", "y")
    )
    turns = (
        user("task", sub_agents=agents),
        Turn((), 4, retry=True),
        user("summary", compacts=True),
        user("leave", leaves_after_s=0.029),
        user("last"),
    )
    warm = SessionPlan("warm", 0.0, (user("warm up"),), "agent", phase="warmup")
    plan = TrafficPlan("agent", (warm, SessionPlan("main", 0.1, turns, "agent")))
    with scripted_server(tmp_path) as server:
        run = launcher.run_profile(profile(), plan, url=server.url, out=tmp_path / "out")
        server.truth_of(9)
    by_turn = {(record.session, record.turn): record for record in records}
    assert len(by_turn) == len(records) == plan.num_requests == 10
    said = {key: [m["content"] for m in one.messages] for key, one in by_turn.items()}
    reply = "w0 w1 w2 w3 "
    assert said["x", 0] == ["task", reply, "x"]
    assert said["y", 1] == ["task", reply, "y", reply, "more"]
    assert said["main", 1] == ["task"]
    assert said["main", 2] == ["summary"]
    assert said["main", 4][:3] == ["summary", reply, "leave"]
    assert reply.startswith(said["main", 4][3])
    assert by_turn["main", 3].left
    ends = [by_turn[name, 1].completed_s or 0.0 for name in ("x", "y")]
    assert (by_turn["main", 1].sent_s or 0.0) > max(ends)
    assert (run["requests"]["scheduled"], run["requests"]["ok"], run["left"]) == (9, 8, 1)
    assert (run["compactions"], run["mutations"], run["status"]) == (1, 0, "ok")
    assert run["phases"]["warmup"]["ok"] == 1
    assert run["totals"]["cached_tokens"] == sum(
        one.cached_tokens or 0 for one in records if one.outcome == "ok" and one.session != "warm"
    )


def test_a_stopped_worker_is_late_and_the_run_says_so(tmp_path: Path) -> None:
    """SIGSTOP for 2 s while 10 sessions a second are due."""

    def stop_for_a_while(work: WorkFolder) -> None:
        (pid,) = locust_processes(work.path)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.0)
        os.kill(pid, signal.SIGCONT)

    plan = conversations(50, 1, every_s=0.1)
    run = run_with_interference(tmp_path, stop_for_a_while, plan, processes=1)
    assert run["requests"]["ok"] == 50
    assert run["loop_stalls"]["longest_s"] > 1.5
    assert [reason["code"] for reason in run["reasons"]] == ["invalid_timing"]


def test_a_cut_stream_is_a_failure_and_ends_its_session(
    tmp_path: Path, records: list[Record]
) -> None:
    with scripted_server(tmp_path, "--mode", "cut") as server:
        run = launcher.run_profile(
            profile(), conversations(3, 2), url=server.url, out=tmp_path / "out"
        )
        assert len(server.truth_of(3)) == 3
    assert run["requests"] | {"ok": 0, "cut": 3, "not_sent": 3} == run["requests"]
    cut = [record for record in records if record.outcome == "cut"]
    assert all(record.first_token_s is not None for record in cut)


def test_an_overloaded_server_gives_http_errors(tmp_path: Path, records: list[Record]) -> None:
    with scripted_server(tmp_path, "--mode", "busy") as server:
        run = launcher.run_profile(
            profile(), conversations(3, 1), url=server.url, out=tmp_path / "out"
        )
    assert run["requests"]["http_error"] == 3
    assert {(record.status, record.error) for record in records} == {(503, "queue full")}


def test_the_time_limit_leaves_a_record_for_every_request(
    tmp_path: Path, records: list[Record]
) -> None:
    """Tokens come every 0.5 s, the limit is 1 s: one session in flight, one never started."""
    turn = Turn(({"role": "user", "content": "a"},), 100)
    plan = TrafficPlan(
        "corpus", (SessionPlan("now", 0.0, (turn,), "c"), SessionPlan("later", 60.0, (turn,), "c"))
    )
    with scripted_server(tmp_path, "--gap", "0.5", "--tokens", "100") as server:
        run = launcher.run_profile(
            profile(max_duration_s=1.0), plan, url=server.url, out=tmp_path / "out"
        )
    assert run["requests"] | {"cancelled": 1, "not_sent": 1} == run["requests"]
    assert {record.session: record.outcome for record in records} == {
        "now": "cancelled",
        "later": "not_sent",
    }
    assert records[0].error is not None
    assert "max_duration_s" in records[0].error


def test_a_wrong_key_ends_before_anything_starts_and_the_right_one_works(tmp_path: Path) -> None:
    with scripted_server(tmp_path, "--key", "sk-canary") as server:
        with pytest.raises(InputError, match="refused the API key"):
            launcher.run_profile(
                profile(), conversations(1, 1), url=server.url, out=tmp_path / "out"
            )
        run = launcher.run_profile(
            profile(),
            conversations(2, 1),
            url=server.url,
            out=tmp_path / "out",
            api_key=Secret("sk-canary"),
        )
    assert run["requests"]["ok"] == 2
    assert "sk-canary" not in everything_in(tmp_path / "out")


def test_a_key_that_the_server_repeats_in_its_errors_is_kept_nowhere(tmp_path: Path) -> None:
    with scripted_server(tmp_path, "--key", "sk-canary", "--mode", "echo") as server:
        launcher.run_profile(
            profile(),
            conversations(2, 1),
            url=server.url,
            out=tmp_path / "out",
            api_key=Secret("sk-canary"),
        )
    kept = everything_in(tmp_path / "out")
    assert "you sent Bearer ***" in kept
    assert "sk-canary" not in kept


def everything_in(folder: Path) -> str:
    """All that a run folder says, its compressed files unpacked."""
    text = ""
    for file in folder.rglob("*"):
        if file.suffix == ".parquet":
            text += str(pq.read_table(file).to_pylist())
        else:
            data = file.read_bytes()
            text += (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    return text


def test_a_run_in_which_nothing_was_sent_is_no_measurement(tmp_path: Path) -> None:
    plan = TrafficPlan("corpus", (session("late", "a", start_s=60.0),))
    with scripted_server(tmp_path) as server, pytest.raises(CannotMeasure) as caught:
        launcher.run_profile(
            profile(max_duration_s=0.2), plan, url=server.url, out=tmp_path / "out"
        )
    assert caught.value.exit_code == 3


def run_with_interference(
    tmp_path: Path, interfere: Callable[[WorkFolder], None], plan: TrafficPlan, processes: int = 2
) -> dict[str, Any]:
    """Run, and call `interfere` with the working folder once 10 requests are done."""
    failures: list[BaseException] = []

    def far_enough() -> WorkFolder | None:
        for path in tmp_path.glob(".out.work-*"):
            work = WorkFolder(path)
            if sum(status.done for status in work.statuses()) >= 10:
                return work
        return None

    def watch() -> None:
        try:
            interfere(until(far_enough, "the run never got so far"))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with scripted_server(tmp_path, "--ttft", "0.1") as server:
            return launcher.run_profile(
                profile(),
                plan,
                url=server.url,
                out=tmp_path / "out",
                choices=Choices(processes=processes),
            )
    finally:
        thread.join(320)
        assert failures == []


def parent_of(pid: int) -> int | None:
    """Parent's pid; None when the process has ended (a zombie has)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])


def locust_processes(work: Path) -> dict[int, int]:
    """pid -> parent's pid of the Locust processes of a run: they run in its working folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            runs_here = (entry / "cwd").readlink() == work
        except OSError:
            continue
        parent = parent_of(int(entry.name))
        if runs_here and parent is not None:
            found[int(entry.name)] = parent
    return found


def master_of(processes: dict[int, int]) -> int:
    return next(pid for pid, parent in processes.items() if parent not in processes)


def all_end(pids: list[int]) -> bool:
    return until(lambda: all(parent_of(pid) is None for pid in pids), "a process stayed")


def test_a_killed_worker_loses_no_acknowledged_record_and_marks_the_run(
    tmp_path: Path, records: list[Record]
) -> None:
    """What a worker had acknowledged before the kill is in its journal, and reaches the folder."""
    acknowledged: dict[int, int] = {}
    pids: list[int] = []

    def kill_a_worker(work: WorkFolder) -> None:
        processes = locust_processes(work.path)
        pids.extend(processes)
        victim = next(pid for pid in processes if pid != master_of(processes))
        os.kill(victim, signal.SIGKILL)
        acknowledged.update({status.worker: status.done for status in work.statuses()})
        for worker, done in acknowledged.items():
            assert len(read_journal(work.journal(worker)).records) >= done

    run = run_with_interference(tmp_path, kill_a_worker, conversations(60, 2, every_s=0.1))
    assert run["missing_workers"] == 1
    assert run["status"] == "invalid"
    journalled = Counter(record.worker for record in records)
    assert sum(acknowledged.values()) >= 10
    assert all(journalled[worker] >= done for worker, done in acknowledged.items())
    counts = run["requests"]
    assert sum(n for name, n in counts.items() if name != "scheduled") == counts["scheduled"] == 120
    assert len(pids) == 3
    assert all_end(pids)


def test_a_folder_that_is_removed_in_the_middle_ends_the_run_by_name(tmp_path: Path) -> None:
    removed: list[WorkFolder] = []

    def remove(work: WorkFolder) -> None:
        shutil.rmtree(work.path)
        removed.append(work)

    begun = time.monotonic()
    with pytest.raises(CannotMeasure, match=r"work-.* was removed while the run went on"):
        run_with_interference(tmp_path, remove, conversations(60, 2, every_s=0.1))
    assert removed
    assert time.monotonic() - begun < 300
    assert not (tmp_path / "out").exists()


def test_a_killed_master_takes_its_workers_along(tmp_path: Path) -> None:
    pids: list[int] = []

    def kill_the_master(work: WorkFolder) -> None:
        processes = locust_processes(work.path)
        pids.extend(processes)
        os.kill(master_of(processes), signal.SIGKILL)

    run = run_with_interference(tmp_path, kill_the_master, conversations(60, 2, every_s=0.1))
    assert run["status"] == "invalid"
    assert run["missing_workers"] == 2
    assert len(pids) == 3
    assert all_end(pids)


LAUNCH = """
import sys
from pathlib import Path
from plans import conversations, profile
from loadkit.locust_users.launcher import run_profile
from loadkit.locust_users.preparing import Choices
run_profile(profile(), conversations(200, 1, every_s=0.1), url=sys.argv[1], out=Path(sys.argv[2]),
            choices=Choices(processes=2))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_launcher_ends_early_no_process_stays(tmp_path: Path, how: signal.Signals) -> None:
    with scripted_server(tmp_path) as server:
        parent = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, server.url, str(tmp_path / "out")],
            env=os.environ | {"PYTHONPATH": str(SUPPORT)},
            stderr=subprocess.DEVNULL,
        )
        until(server.truth, "nothing was sent")
        work = next(tmp_path.glob(".out.work-*"))
        pids = list(locust_processes(work))
        parent.send_signal(how)
        parent.wait(GENEROUS_S)
        assert len(pids) == 3
        assert all_end(pids)
    if how is not signal.SIGINT:  # these give the launcher no time: the journals stay
        assert not (tmp_path / "out").exists()
        assert list(work.glob("journals/*"))
        return
    assert not work.exists()
    run = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert run["status"] == "invalid"
    assert [reason["code"] for reason in run["reasons"]][-1:] == ["interrupted"]
    assert run["requests"]["ok"] > 0
    assert run["requests"]["scheduled"] == 200
