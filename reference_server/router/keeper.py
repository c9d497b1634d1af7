"""Starts a replica again that ended by itself: a few times, with pauses that grow."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from loadkit.core.errors import InputError
from reference_server.router.fleet import Replica

# One that dies again and again has a reason that starting it does not cure.
MAX_STARTS = 3
# Who ran that long may be started MAX_STARTS times again.
STABLE_S = 600.0
PAUSE_S, POLL_S = 1.0, 0.5


class Process(Protocol):
    """See processes.ReplicaProcess."""

    def poll(self) -> int | None: ...

    def start(self) -> None: ...

    def wait_ready(self) -> str: ...

    def terminate(self) -> None: ...


class Keeper:
    """`on_start(index)` is called before each further start of a replica. The health checks find out
    when it may be asked again; its cache is empty then.

    is_stopping: the router drains. A replica that ends then was told to, by a signal to the group.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        fleet: Sequence[Replica],
        on_start: Callable[[int], None] = lambda index: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pairs = list(zip(processes, fleet, strict=True))
        self._on_start, self._sleep, self._clock = on_start, sleep, clock
        self._is_stopping = is_stopping

    async def run(self) -> None:
        """Until it is cancelled, or all replicas are given up."""
        await asyncio.gather(*(self._keep(*pair) for pair in self._pairs))

    async def _keep(self, process: Process, replica: Replica) -> None:
        num, name = 0, f"replica {replica.index}"
        while True:
            began_s = self._clock()
            while process.poll() is None:
                await self._sleep(POLL_S)
            replica.url = ""
            replica.take_out()
            if self._is_stopping():
                return
            num = 1 if self._clock() - began_s >= STABLE_S else num + 1
            ended = f"{name} ended with exit code {process.poll()}"
            if num > MAX_STARTS:
                _tell(f"{ended}; it stays down, having ended {num} times")
                return
            _tell(f"{ended}; started again, {num} of {MAX_STARTS} times")
            await self._sleep(PAUSE_S * 2 ** (num - 1))
            if self._is_stopping():
                return
            self._on_start(replica.index)
            await self._start(process, replica)

    async def _start(self, process: Process, replica: Replica) -> None:
        """One that cannot be started, or ends before it is ready, has ended once more."""
        try:
            process.start()
            replica.url = await asyncio.to_thread(process.wait_ready)
        except InputError:  # told by itself
            return
        except OSError as error:  # no memory, no more processes or files
            _tell(f"replica {replica.index} cannot be started: {error}")
        except asyncio.CancelledError:
            process.terminate()  # else its thread would wait for a model to be loaded
            raise


def _tell(text: str) -> None:
    print(f"loadkit serve: {text}", file=sys.stderr, flush=True)
