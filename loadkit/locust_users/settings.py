"""What the launcher tells its load workers, and where everything lies in the working folder.

Must not import locust: the parent process reads and writes this too. No API key is ever in here.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from loadkit.client.answer import Response
from loadkit.client.bodies import MaxTokensField
from loadkit.client.stalls import StallReport
from loadkit.client.timeouts import Timeouts
from loadkit.core.errors import InputError
from loadkit.runs.context import RunContext, Start
from loadkit.runs.journal import Head, read_head

WORK_VARIABLE = "LOADKIT_WORK"


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """When a request that was turned away is sent again; see `profiles.Retries`."""

    max_retries: int = 0
    statuses: tuple[int, ...] = (429, 503)
    backoff_s: float = 1.0
    max_wait_s: float = 60.0

    def wait_s(self, response: Response, attempts: int) -> float | None:
        """Seconds to wait before the next attempt: what the server asked for, else a wait that
        doubles. None: this was the last attempt."""
        refused = response.outcome == "http_error" and response.status in self.statuses
        if not refused or attempts > self.max_retries:
            return None
        wait_s = response.retry_after_s
        if wait_s is None:
            wait_s = self.backoff_s * 2 ** (attempts - 1)
        return wait_s if wait_s <= self.max_wait_s else None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one run. users, ramp_up_s: closed loop only. return_token_ids: the server knows the flag.
    run_id: joins the session ids on the wire, since those of a plan are the same in each of its runs.
    cache_salt: sent with every request; None: no salt.
    remote: the workers are on other machines, or at least not ours to start.
    metrics_port: of a Prometheus page of our own, on loopback.
    expected_hit_rate: estimate, low and high, drawn behind the live split; None: no band."""

    url: str
    model: str
    loop: str
    run_id: str = ""
    users: int = 1
    ramp_up_s: float = 0.0
    processes: int = 1
    temperature: float = 0.0
    ignore_eos: bool = False
    exact_output: bool = False
    max_tokens_field: MaxTokensField = "max_tokens"
    ask_usage: bool = True
    timeouts: Timeouts = Timeouts()
    retries: RetryRule = RetryRule()
    cache_salt: str | None = None
    max_duration_s: float = 600.0
    return_token_ids: bool = False
    web: bool = False
    remote: bool = False
    metrics_port: int | None = None
    expected_hit_rate: dict[str, float] | None = None


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far one worker is, `elapsed_s` after the run's start; written now and then, and last
    when it has finished. unasked: connections on which more came than was asked for.
    token_ids_refused: the server answers only requests without `return_token_ids`."""

    worker: int
    done: int
    elapsed_s: float = 0.0
    finished: bool = False
    mutations: int = 0
    resends: int = 0
    compactions: int = 0
    unasked: int = 0
    token_ids_refused: bool = False
    stalls: StallReport | None = None


class WorkFolder:
    """Paths of a run's private working folder, and reading and writing what lies there."""

    def __init__(self, path: Path):
        self.path = path
        self.plan = path / "plan.json"
        self.log = path / "locust.log"
        self._context = path / "context.json"
        self._lock = -1
        self._notes = path / "notes.txt"
        self._settings = path / "settings.json"
        self._start = path / "start.json"

    @classmethod
    def from_environment(cls) -> WorkFolder:
        """Folder named by LOADKIT_WORK. InputError when it is not set."""
        path = os.environ.get(WORK_VARIABLE)
        if not path:
            raise InputError(
                "not set", where=f"${WORK_VARIABLE}", remedy="start runs with `loadkit run`"
            )
        return cls(Path(path))

    def create(self, settings: Settings) -> None:
        """Fill a new folder (0700 is up to the caller) with settings and empty rooms."""
        for room in ("journals", "status"):
            (self.path / room).mkdir(mode=0o700)
        self._settings.write_bytes(msgspec.json.encode(settings))

    def write_context(self, context: RunContext) -> None:
        """Keep what is known of the run, for whoever makes its folder, now or after a kill."""
        _replace(self._context, msgspec.json.encode(context))

    def context(self) -> RunContext:
        """InputError if the file is not there, or is damaged."""
        try:
            return msgspec.json.decode(self._context.read_bytes(), type=RunContext)
        except FileNotFoundError as error:
            remedy = "check the path"
            raise InputError(
                "no working folder of a run", where=self.path, remedy=remedy
            ) from error
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", where=self._context) from error

    def head(self) -> Head | None:
        """What the first journal that has it whole says of the run; None before any was begun."""
        heads = map(read_head, sorted((self.path / "journals").glob("*.journal")))
        return next((head for head in heads if head is not None), None)

    def hold(self) -> None:
        """Show, for as long as this process lives, that the run is being looked after."""
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_held(self) -> bool:
        """Whether somebody looks after the run; otherwise its launcher has died."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def settings(self) -> Settings:
        return msgspec.json.decode(self._settings.read_bytes(), type=Settings)

    def journal(self, worker: int) -> Path:
        return self.path / "journals" / f"worker-{worker}.journal"

    def note(self, text: str) -> None:
        """Tell the launcher something while the run goes on: one line, for the terminal and for
        the run's notes."""
        with self._notes.open("a", encoding="utf-8") as notes:
            notes.write(text.replace("\n", " ") + "\n")

    def notes(self) -> list[str]:
        """What was told so far. A line that is still being written is not there yet."""
        try:
            text = self._notes.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()

    def journals(self) -> list[Path]:
        """Those that are there."""
        return sorted((self.path / "journals").glob("*.journal"))

    def has_journals(self) -> bool:
        return bool(self.journals())

    def write_status(self, status: WorkerStatus) -> None:
        path = self.path / "status" / f"worker-{status.worker}.json"
        _replace(path, msgspec.json.encode(status))

    def statuses(self) -> list[WorkerStatus]:
        """Last status of each worker that has reported at all; a damaged one was not reported."""
        found = []
        for path in sorted((self.path / "status").glob("worker-*.json")):
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                found.append(msgspec.json.decode(path.read_bytes(), type=WorkerStatus))
        return found

    def begin(self, lead_s: float) -> Start:
        """The run's start, `lead_s` from now: the first worker to ask sets it for all of them."""
        start = Start(time.monotonic() + lead_s, time.time() + lead_s)
        mine = self._start.with_suffix(f".{os.getpid()}.tmp")
        mine.write_bytes(msgspec.json.encode(start))
        try:
            os.link(mine, self._start)  # unlike rename, fails when another was first
        except FileExistsError:
            pass
        finally:
            mine.unlink()
        return msgspec.json.decode(self._start.read_bytes(), type=Start)

    def started(self) -> Start | None:
        """The run's start; None before any worker has begun. A damaged or missing file is made up
        for by the journals."""
        with suppress(FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(self._start.read_bytes(), type=Start)
        head = self.head()
        return None if head is None else head.start


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
