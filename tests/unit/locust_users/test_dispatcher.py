"""The dispatcher with gevent but without Locust: who starts when, and what a stop leaves behind."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import gevent
import pytest
from gevent.lock import Semaphore
from plans import session

from loadkit.locust_users import dispatcher as dispatcher_module
from loadkit.locust_users.dispatcher import Dispatcher
from loadkit.locust_users.settings import Settings
from loadkit.locust_users.worker import LoadWorker
from loadkit.traffic.plan import SessionPlan

START = 1000.0


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Virtual time: sleeping to a moment sets the clock and gives way once."""
    clock = [START]

    def sleep_until(at: float) -> None:
        if at - clock[0] > 10_000:
            gevent.sleep(1000)
        gevent.sleep(0)
        clock[0] = max(clock[0], at)

    monkeypatch.setattr(dispatcher_module, "sleep_until", sleep_until)
    return clock


class FakeWorker:
    """Counts what was skipped; `finish` must come once, after everything else."""

    def __init__(self, loop: str, *sessions: SessionPlan):
        self.settings = Settings(url="u", model="m", loop=loop, max_duration_s=100_000.0)
        self.sessions = sessions
        self.lane = self
        self.start_at = START
        self.skipped: list[tuple[str, str]] = []
        self.num_finished = 0

    def skip(self, plan: SessionPlan, reason: str) -> None:
        assert not self.num_finished
        self.skipped.append((plan.session, reason))

    def finish(self) -> None:
        self.num_finished += 1


def make(loop: str, *sessions: SessionPlan) -> tuple[Dispatcher, FakeWorker]:
    worker = FakeWorker(loop, *sessions)
    return Dispatcher(cast(LoadWorker, worker), lambda: None), worker


def test_open_loop_starts_sessions_on_time_however_long_earlier_ones_take(now: list[float]) -> None:
    dispatcher, worker = make("open", *(session(f"s{i}", "a", start_s=float(i)) for i in range(4)))
    started: list[tuple[str, float, bool]] = []
    gate = Semaphore(0)

    def play(plan: SessionPlan, intended_at: float) -> None:
        started.append((plan.session, intended_at, now[0] <= intended_at))
        if len(started) == 4:
            for _ in range(4):
                gate.release()
        gate.acquire()  # nobody ends before all have started

    dispatcher.drive(play)
    assert started == [(f"s{i}", START + i, True) for i in range(4)]
    assert (worker.num_finished, worker.skipped) == (1, [])
    assert dispatcher.finished.is_set()


def test_closed_loop_users_share_the_sessions_and_never_exceed_their_number() -> None:
    dispatcher, worker = make("closed", *(session(f"s{i}", "a") for i in range(7)))
    played: Counter[str] = Counter()
    running = [0]
    most = [0]

    def play(plan: SessionPlan, intended_at: float) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gevent.sleep(0)
        played[plan.session] += 1
        running[0] -= 1

    users = [gevent.spawn(dispatcher.drive, play) for _ in range(3)]
    gevent.joinall(users, raise_error=True)
    assert played == {f"s{i}": 1 for i in range(7)}
    assert most[0] == 3
    assert worker.num_finished == 1


def test_users_of_a_closed_loop_begin_one_after_the_other_over_the_ramp() -> None:
    """The second of two workers has users 1 and 3 of 4, which begin at 2 and 6 of 8 s."""
    dispatcher, worker = make("closed", session("s0", "a"))
    worker.settings = Settings(
        url="u", model="m", loop="closed", users=4, processes=2, ramp_up_s=8.0
    )
    worker.worker = 1  # type: ignore[attr-defined]
    begins = [dispatcher._begin_of(number) - START for number in range(2)]
    assert begins == [2.0, 6.0]


def test_closed_loop_plays_rows_of_one_session_one_after_the_other() -> None:
    dispatcher, _ = make("closed", *(session(name, "x") for name in ("a", "a", "b", "a", "b")))
    playing: list[str] = []
    played: list[str] = []

    def play(plan: SessionPlan, _: float) -> None:
        assert plan.session not in playing
        playing.append(plan.session)
        gevent.sleep(0)
        playing.remove(plan.session)
        played.append(plan.session)

    gevent.joinall([gevent.spawn(dispatcher.drive, play) for _ in range(3)], raise_error=True)
    assert sorted(played) == ["a", "a", "a", "b", "b"]


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_a_stop_ends_what_runs_and_records_what_never_started(loop: str) -> None:
    plans = [session("a", "x"), session("b", "x"), session("late", "x", start_s=1e9)]
    dispatcher, worker = make(loop, *plans)
    ended: list[str] = []

    def play(plan: SessionPlan, intended_at: float) -> None:
        try:
            gevent.sleep(1000)
        finally:
            ended.append(plan.session)

    user = gevent.spawn(dispatcher.drive, play)
    gevent.sleep(0.01)
    dispatcher.stop("enough")
    user.kill()
    skipped = [name for name, _ in worker.skipped]
    assert Counter(ended + skipped) == {"a": 1, "b": 1, "late": 1}
    assert worker.skipped[0][1] == "enough"
    assert worker.num_finished == 1


def test_killing_the_last_user_ends_the_run() -> None:
    dispatcher, worker = make("open", session("late", "x", start_s=1e9))
    user = gevent.spawn(dispatcher.drive, lambda plan, at: None)
    gevent.sleep(0.01)
    user.kill()
    assert worker.skipped == [("late", "the run was stopped")]
    assert dispatcher.finished.is_set()


def test_a_session_killed_before_its_first_instruction_is_recorded() -> None:
    dispatcher, worker = make("open", session("a", "x"))
    played: list[Any] = []
    dispatcher._waiting.clear()
    dispatcher._start(lambda plan, at: played.append(plan), session("a", "x"), START)
    dispatcher.stop("now")
    assert played == []
    assert worker.skipped == [("a", "now")]


def test_a_second_user_of_an_open_loop_adds_nothing() -> None:
    dispatcher, _ = make("open", *(session(f"s{i}", "x") for i in range(3)))
    played: list[str] = []

    def play(plan: SessionPlan, intended_at: float) -> None:
        played.append(plan.session)

    gevent.joinall([gevent.spawn(dispatcher.drive, play) for _ in range(2)], raise_error=True)
    assert sorted(played) == ["s0", "s1", "s2"]


def test_the_time_limit_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = FakeWorker("open", session("late", "x", start_s=1e9))
    worker.settings = Settings(url="u", model="m", loop="open", max_duration_s=60.0)
    dispatcher = Dispatcher(cast(LoadWorker, worker), lambda: None)
    user = gevent.spawn(dispatcher.drive, lambda plan, at: None)
    dispatcher.finished.wait(5)
    user.kill()
    assert worker.skipped == [("late", "max_duration_s (60 s) was reached")]
