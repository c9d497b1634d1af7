"""loadkit's streaming client beside Locust's FastHttpSession.iter_lines, on one machine, one run.

    python benchmarks/client_speed.py [--requests 400] [--concurrency 50]

Two figures a client, against a server that logs when it sent each first token:

- requests of 64 events of about 200 bytes per second of the client's own CPU time, for answers in
  one burst and for one write an event. `loadkit` and `fasthttp` decode the JSON of every event, as a
  load test that reports text and usage must; `-raw` rows only receive and stamp (loadkit) or look
  for the first line with content (fasthttp).
- TTFT error in ms: first token seen minus first token sent, p50 and p99, events every 20 ms.

Each client runs in a process of its own, in greenlets of a patched process as under Locust. Compare
rows with each other only: the machine may be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

NUM_EVENTS = 64
GAP_S = {"burst": 0.0, "writes": 0.0, "timed": 0.02}


def body_events() -> list[bytes]:
    """64 chunked events of about 200 bytes, then usage and [DONE]."""
    base = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "model": "model"}
    pad = {"created": 1234567890, "system_fingerprint": "fp_0123456789"}
    events: list[dict[str, Any]] = [
        base | pad | {"choices": [{"index": 0, "delta": {"content": " word"}}]}
        for _ in range(NUM_EVENTS)
    ]
    events[-1]["choices"][0]["finish_reason"] = "length"
    events.append(base | {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 64}})
    texts = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return [b"%x\r\n%s\r\n" % (len(text), text) for text in [*texts, b"data: [DONE]\n\n"]]


class TruthServer(asyncio.Protocol):
    """Answers any POST; the path's last part is the mode, x-session-id goes into the log."""

    HEAD = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    EVENTS = body_events()
    truth: dict[str, float] = {}  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if found and len(rest) >= length:
            self.data = b""
            self.answer(head.decode())

    def answer(self, head: str) -> None:
        mode = head.split()[1].rpartition("/")[2]
        session = head.lower().partition("x-session-id: ")[2].split("\r\n")[0]
        if mode == "truth":
            body = json.dumps(self.truth).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            return
        self.transport.write(self.HEAD)
        asyncio.get_running_loop().create_task(self.stream(mode, session))

    async def stream(self, mode: str, session: str) -> None:
        if mode == "burst":
            self.transport.write(b"".join(self.EVENTS) + b"0\r\n\r\n")
            return
        for number, event in enumerate(self.EVENTS):
            await asyncio.sleep(GAP_S[mode])
            if number == 0:
                self.truth[session] = time.monotonic()
            self.transport.write(event)
        self.transport.write(b"0\r\n\r\n")


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(TruthServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def drive(client: str, url: str, mode: str, requests: int, concurrency: int) -> dict[str, Any]:
    """Send `requests` from `concurrency` greenlets: CPU seconds and the first-token times."""
    from gevent.pool import Pool
    from locust import events  # patches the process, as in a load worker

    make = with_loadkit if client.startswith("loadkit") else with_fasthttp
    send = make(url, mode, events.request, decode=not client.endswith("-raw"))
    first: dict[str, float] = {}

    def one(number: int) -> None:
        session = f"{client}-{number}"
        first[session] = send(session)

    list(Pool(concurrency).imap_unordered(one, range(concurrency)))  # connect and warm up
    cpu = time.process_time()
    list(Pool(concurrency).imap_unordered(one, range(requests)))
    return {"cpu_s": time.process_time() - cpu, "first": first}


def with_loadkit(url: str, mode: str, _: Any, *, decode: bool) -> Any:
    from loadkit.client.connection import ConnectionPool
    from loadkit.client.endpoint import Endpoint
    from loadkit.client.exchange import Receipt, exchange
    from loadkit.client.stream import StreamClient
    from loadkit.client.timeouts import Timeouts

    client = StreamClient(Endpoint.parse(url))
    pool = ConnectionPool(Endpoint.parse(url))

    def send_raw(request: bytes) -> float:
        connection, receipt = pool.acquire(), Receipt()
        exchange(connection, request, receipt, Timeouts())
        pool.release(connection)
        return receipt.stamps[0]

    def send(session: str) -> float:
        request = client.prepare({"messages": []}, session=session, path=f"/{mode}")
        if not decode:
            return send_raw(request)
        response = client.send(client.connect(), request)
        assert response.outcome == "ok", response.error
        assert response.first_token_at is not None
        return response.first_token_at

    return send


def with_fasthttp(url: str, mode: str, request_event: Any, *, decode: bool) -> Any:
    import orjson
    from locust.contrib.fasthttp import FastHttpSession

    idle = [FastHttpSession(url, request_event, None) for _ in range(400)]

    def send(session: str) -> float:
        client, first = idle.pop(), 0.0
        headers = {"x-session-id": session}
        for line in client.iter_lines(f"/{mode}", method="POST", json={}, headers=headers):
            if not first and '"content": "' in line:
                first = time.monotonic()
            if decode and line.startswith("data: {"):
                orjson.loads(line[6:])
        idle.append(client)
        return first

    return send


def measure(client: str, mode: str, requests: int, concurrency: int) -> dict[str, Any]:
    """One client against a fresh server, both in processes of their own."""
    script = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen([*script, "--serve"], stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        options = ["--requests", str(requests), "--concurrency", str(concurrency)]
        command = [*script, "--client", client, "--url", url, "--mode", mode, *options]
        result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=pipe).stdout)
        import httpx

        truth = httpx.post(f"{url}/truth", content=b"x").json()
        server.stdin.close()
    errors = sorted(1000 * (seen - truth[key]) for key, seen in result["first"].items() if truth)
    return {
        "rate": requests / result["cpu_s"],
        "p50": errors[len(errors) // 2] if errors else None,
        "p99": errors[int(0.99 * (len(errors) - 1))] if errors else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--concurrency", type=int, default=50)
    for hidden in ("--client", "--url", "--mode"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.client:
        print(json.dumps(drive(*(vars(options)[k] for k in DRIVE_OPTIONS))))
    else:
        compare(options.requests, options.concurrency)


DRIVE_OPTIONS = ("client", "url", "mode", "requests", "concurrency")


CLIENTS = ("loadkit", "fasthttp", "loadkit-raw", "fasthttp-raw")


def compare(requests: int, concurrency: int) -> None:
    for mode in ("burst", "writes", "timed"):
        rows = {client: measure(client, mode, requests, concurrency) for client in CLIENTS}
        for client, row in rows.items():
            ratio = row["rate"] / rows["fasthttp" + "-raw" * client.endswith("-raw")]["rate"]
            line = f"{mode:7} {client:13} {row['rate']:7.0f} requests/CPU-second  {ratio:4.1f} x"
            if mode == "timed":
                line += f"  TTFT error p50 {row['p50']:.1f} p99 {row['p99']:.1f} ms"
            print(line)


if __name__ == "__main__":
    main()
