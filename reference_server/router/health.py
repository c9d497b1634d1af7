"""Which replicas get requests: asked again and again, and taken out at once when one is gone."""

from __future__ import annotations

import asyncio

import httpx

from reference_server.router.fleet import Fleet, Replica

INTERVAL_S = 1.0
TIMEOUT_S = 5.0
# A busy replica may be late once.
MAX_FAILURES = 2


class HealthChecks:
    """GET /health of every replica each INTERVAL_S. One that comes back is taken to be empty."""

    def __init__(self, fleet: Fleet, client: httpx.AsyncClient) -> None:
        self._fleet, self._client = fleet, client

    async def run(self) -> None:
        while True:
            await self.check_all()
            await asyncio.sleep(INTERVAL_S)

    async def check_all(self) -> None:
        await asyncio.gather(*(self._check(replica) for replica in self._fleet.replicas))

    def suspect(self, replica: Replica, *, is_gone: bool = False) -> None:
        """A connection ended early; is_gone: nobody listens there any more."""
        replica.num_failures += 1
        if is_gone or replica.num_failures >= MAX_FAILURES:
            replica.take_out()

    async def _check(self, replica: Replica) -> None:
        url = replica.url
        if not url:
            replica.take_out()
            return
        try:
            answer = await self._client.get(f"{url}/health", timeout=TIMEOUT_S)
        except httpx.TransportError as error:
            self.suspect(replica, is_gone=isinstance(error, httpx.ConnectError))
            return
        if answer.status_code != 200:  # loading, draining or a dead engine: it says so itself
            replica.take_out()
        elif replica.url == url:  # else it ended meanwhile
            replica.is_up, replica.num_failures = True, 0
