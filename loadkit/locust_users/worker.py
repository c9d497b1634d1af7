"""What a load worker owns: its journal, its status file, its sessions. One per process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import read_api_key
from loadkit.client.stalls import StallMonitor
from loadkit.client.stream import StreamClient
from loadkit.core.errors import what_failed, what_to_do
from loadkit.locust_users.live import get_live
from loadkit.locust_users.session import Lane
from loadkit.locust_users.settings import Settings, WorkerStatus, WorkFolder
from loadkit.runs.journal import Head, JournalWriter
from loadkit.runs.record import Record
from loadkit.traffic.plan import SessionPlan

STATUS_INTERVAL_S = 0.25
EXIT_CANNOT_WRITE = 74  # EX_IOERR of sysexits.h

logger = logging.getLogger(__name__)


class LoadWorker:
    """Journals, counts and reports each finished request, in this order.

    head: what the journal says of the run, so that it alone is enough to make the run folder.
    report: called with the record once it is safe on disk (Locust's request event).
    """

    def __init__(
        self,
        work: WorkFolder,
        settings: Settings,
        sessions: tuple[SessionPlan, ...],
        *,
        worker: int,
        start_at: float,
        report: Callable[[Record], None],
        head: Head | None = None,
    ):
        self.work, self.settings, self.sessions, self.worker = work, settings, sessions, worker
        client = StreamClient(
            Endpoint.parse(settings.url), key=read_api_key(), timeouts=settings.timeouts
        )
        self.lane = Lane(client, settings, worker=worker, start_at=start_at, emit=self._emit)
        self.num_done = 0  # what was never sent is not done, though it has its record
        self.is_finished = False
        self.is_orphaned = False  # stopped because its parent or master died, not as planned
        self.monitor = StallMonitor()
        self._report = report
        self._journal = JournalWriter(work.journal(worker), head)
        self._status_due = 0.0

    def _emit(self, record: Record) -> None:
        kept = self._keep(record)
        get_live().observe(kept)
        self._report(kept)

    def _keep(self, record: Record) -> Record:
        """The record as it was kept. A worker that cannot keep its records must not go on sending:
        it leaves, and the launcher counts it as missing."""
        try:
            kept = self._journal.append(record)
            self.num_done += kept.outcome != "not_sent"
            if time.monotonic() >= self._status_due:
                self.write_status()
        except OSError as error:
            self._tell(f"{what_failed(error)} ({what_to_do(error)})")
            os._exit(EXIT_CANNOT_WRITE)
        return kept

    def _tell(self, why: str) -> None:
        """Why this worker leaves: in Locust's log, and in the run's notes where that can still be."""
        text = f"load worker {self.worker} cannot keep its records and ends: {why}"
        logger.error("%s", text)
        with suppress(OSError):
            self.work.note(text)

    def status(self) -> WorkerStatus:
        """How far this worker is. Never ahead of the journal."""
        guard = self.lane.guard
        return WorkerStatus(
            worker=self.worker,
            done=self.num_done,
            elapsed_s=time.monotonic() - self.lane.start_at,
            finished=self.is_finished and not self.is_orphaned,
            mutations=guard.num_refused,
            resends=guard.num_resent,
            compactions=self.lane.num_compactions,
            token_ids_refused=self.lane.token_ids_refused is True,
            unasked=self.lane.client.num_unasked,
            stalls=self.monitor.report(),
        )

    def write_status(self) -> None:
        """Tell the launcher how far this worker is."""
        self._status_due = time.monotonic() + STATUS_INTERVAL_S
        self.work.write_status(self.status())

    def finish(self) -> None:
        """All sessions have their records: close the journal and say so. Once is enough."""
        if not self.is_finished:
            self.is_finished = True
            self.monitor.stop()
            self._journal.close()
            self.lane.client.close()
            self.write_status()
