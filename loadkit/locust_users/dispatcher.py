"""When sessions start: at planned times (open loop), or when a user is free (closed loop).

Locust has no open loop of its own. Ours is one Locust user a worker that starts one greenlet per
session at its planned time, so a slow server never slows the arrivals down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.pool import Group

from loadkit.locust_users.session import STOPPED, WARM_LEAD_S, sleep_until
from loadkit.locust_users.worker import LoadWorker
from loadkit.traffic.plan import Phase, SessionPlan

Player = Callable[[SessionPlan, float], None]


class Dispatcher:
    """Hands out a worker's sessions until none is left, the time is up, or it is stopped.

    When `finished` is set, every turn of every session has its record, and `on_finish` is called;
    once more for each user that comes later and finds nothing to do.
    """

    def __init__(self, worker: LoadWorker, on_finish: Callable[[], None]):
        self.worker = worker
        self.finished = Event()
        self._on_finish = on_finish
        self._waiting = deque(worker.sessions)
        self._unstarted: list[SessionPlan] = []
        self._busy: set[str] = set()
        self._phase: Phase | None = None
        self._one_ended = Event()
        self._playing = Group()
        self._is_driven = False
        self._num_users = 0
        self._timer = gevent.spawn(self._limit_duration)

    def drive(self, play: Player) -> None:
        """Run by each Locust user; returns when there is nothing left for it to do.

        When the last user of the worker leaves, or is killed, the run of this worker is over.
        """
        if self.finished.is_set():  # started again in the web interface: a plan is sent once
            self._on_finish()
            return
        number = self._num_users
        self._num_users += 1
        try:
            if self.worker.settings.loop == "closed":
                sleep_until(self._begin_of(number))
                self._drive_closed(play)
            elif not self._is_driven:
                self._is_driven = True
                self._drive_open(play)
                self.stop(STOPPED)  # nothing is left to stop; others may wait for `finished`
            else:
                self.finished.wait()  # a second user adds nothing to a planned schedule
        finally:
            self._num_users -= 1
            if self._num_users == 0:
                self.stop(STOPPED)

    def stop(self, reason: str) -> None:
        """End what is under way (its requests become `cancelled`) and record what never started."""
        self.worker.lane.stop_reason = reason
        self._skip_all(self._waiting, reason)
        self._playing.kill()
        self._skip_all(self._unstarted, reason)
        if not self.finished.is_set():
            self.worker.finish()
            self.finished.set()
            self._on_finish()

    def _skip_all(self, sessions: deque[SessionPlan] | list[SessionPlan], reason: str) -> None:
        while sessions:
            self.worker.lane.skip(sessions.pop(), reason)

    def _drive_open(self, play: Player) -> None:
        """A session stays in `_waiting` while we sleep, so that a stop meanwhile records it."""
        start_at = self.worker.lane.start_at
        while self._waiting:
            sleep_until(start_at + self._waiting[0].start_s - 2 * WARM_LEAD_S)
            if self._waiting:
                session = self._waiting.popleft()
                self._start(play, session, start_at + session.start_s)
        self._playing.join()

    def _begin_of(self, number: int) -> float:
        """When this worker's user `number` (from 0) begins: the users of all workers follow each
        other over `ramp_up_s`."""
        settings, start_at = self.worker.settings, self.worker.lane.start_at
        if not settings.ramp_up_s:
            return start_at
        overall = number * settings.processes + self.worker.worker
        return start_at + overall * settings.ramp_up_s / settings.users

    def _drive_closed(self, play: Player) -> None:
        """Each session in a greenlet of the group, so that `stop` reaches it like an open one."""
        while (session := self._next_free()) is not None:
            self._busy.add(session.session)
            try:
                self._start(play, session, time.monotonic()).join()
            finally:
                self._busy.discard(session.session)
                self._one_ended.set()

    def _next_free(self) -> SessionPlan | None:
        """The next that no other user is in the middle of (rows of one replayed conversation follow
        each other), once the phase before it has ended. None: nothing waits, or as many users as
        are needed have it in hand."""
        while self._waiting and self._busy and self._waiting[0].phase != self._phase:
            self._one_ended.clear()
            self._one_ended.wait()
        for index, session in enumerate(self._waiting):
            if session.session not in self._busy and session.phase == self._waiting[0].phase:
                del self._waiting[index]
                self._phase = session.phase
                return session
        return None

    def _start(self, play: Player, session: SessionPlan, intended_at: float) -> gevent.Greenlet:
        """A greenlet killed before its first instruction never runs: `_unstarted` remembers it."""
        self._unstarted.append(session)
        return self._playing.spawn(self._play, play, session, intended_at)

    def _play(self, play: Player, session: SessionPlan, intended_at: float) -> None:
        self._unstarted.remove(session)
        play(session, intended_at)

    def _limit_duration(self) -> None:
        limit_s = self.worker.settings.max_duration_s
        sleep_until(self.worker.lane.start_at + limit_s)
        self.stop(f"max_duration_s ({limit_s:g} s) was reached")
