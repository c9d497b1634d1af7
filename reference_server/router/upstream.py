"""One request to one replica: its first byte, then the rest as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from reference_server.router.fleet import Replica

# Of one hop, or the router's own to say. Origin and Sec-Fetch-* were checked at the door.
NOT_PASSED_ON = frozenset(
    b"host connection keep-alive transfer-encoding content-length te trailer upgrade expect"
    b" proxy-authorization proxy-connection origin sec-fetch-site sec-fetch-mode sec-fetch-dest".split()
)
NOT_PASSED_BACK = frozenset(b"connection keep-alive transfer-encoding date server".split())
CONNECT_S = 5.0
RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client sent; `path` with its query."""

    method: str
    path: str
    headers: RawHeaders
    body: bytes


@dataclass(slots=True)
class Answer:
    """A stream is there with its first chunk; any other answer is whole."""

    status: int
    headers: RawHeaders
    first: bytes
    is_stream: bool
    response: httpx.Response
    rest: AsyncIterator[bytes]

    async def close(self) -> None:
        await self.response.aclose()


class Lost(Exception):
    """The replica cannot be reached, its connection ended before the answer did, or it was taken out
    (error None) before the answer began."""

    def __init__(self, replica: Replica, error: httpx.TransportError | None = None) -> None:
        super().__init__(f"replica {replica.index}: {type(error).__name__}")
        self.is_gone = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def make_client() -> httpx.AsyncClient:
    """No proxy and no limit on connections; the time of an answer is the client's to bound."""
    return httpx.AsyncClient(
        trust_env=False,
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
    )


async def ask(client: httpx.AsyncClient, replica: Replica, asked: Asked) -> Answer:
    """Nothing of the answer has been passed on when Lost is raised."""
    headers = [(name, value) for name, value in asked.headers if name not in NOT_PASSED_ON]
    request = httpx.Request(
        asked.method, replica.url + asked.path, headers=headers, content=asked.body
    )
    request.extensions = {"timeout": client.timeout.as_dict()}
    response = None
    try:
        response = await client.send(request, stream=True)
        return await _begun(response)
    except httpx.TransportError as error:
        raise Lost(replica, error) from error
    except BaseException:
        if response is not None:
            await response.aclose()
        raise


async def _begun(response: httpx.Response) -> Answer:
    chunks = response.aiter_raw()
    is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    first = await anext(chunks, b"") if is_stream else b"".join([part async for part in chunks])
    headers = [(n.lower(), v) for n, v in response.headers.raw if n.lower() not in NOT_PASSED_BACK]
    return Answer(response.status_code, headers, first, is_stream, response, chunks)
