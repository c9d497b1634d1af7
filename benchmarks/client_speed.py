"""loadkit's streaming client beside Locust's own, httpx and requests, on one machine, in one run.

    python benchmarks/client_speed.py [--rounds 3] [--streams 1,50,200,1000] [--clients a,b]

Two tables, against a server that logs when it sent each first token:

- requests of 64 events of about 200 bytes per second of the client's own processor time, 50 at a
  time, for answers in one burst and for one write an event. `decoded` rows decode the JSON of every
  event, as a load test that reports text and usage must; `raw` rows only receive and stamp
  (loadkit) or look for the first line with content (the others). Median of the rounds.
- TTFT error in ms: first token as the client timed it minus first token sent, p50 / p99, an event
  every 20 ms, at each number of streams.

Each client runs in a process of its own, in greenlets of a patched process as under Locust; nothing
else of Locust runs. Ratios are to FastHttpUser's row of the same kind. Compare rows with each other
only: the machine may be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

NUM_EVENTS = 64
GAP_S = 0.02
CONCURRENCY = 50
TIMEOUT_S = 90
CLIENTS = ("loadkit", "fasthttp", "httpuser", "httpx")
Send = Callable[[str], float]


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
        self.transport: Any = transport
        self.data = b""

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
        if mode == "burst":
            self.transport.write(b"".join(self.EVENTS) + b"0\r\n\r\n")
        else:
            self.stream(session, GAP_S if mode == "timed" else 0.0)

    def stream(self, session: str, gap_s: float) -> None:
        loop, left = asyncio.get_running_loop(), iter(self.EVENTS)
        due = loop.time()

        def step() -> None:
            nonlocal due
            event = next(left, None)
            if event is None:
                self.transport.write(b"0\r\n\r\n")
                return
            self.truth.setdefault(session, time.monotonic())
            self.transport.write(event)
            due += gap_s
            loop.call_at(due, step) if gap_s else loop.call_soon(step)

        due += gap_s
        loop.call_at(due, step)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(TruthServer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def drive(client: str, url: str, mode: str, requests: int, concurrency: int) -> dict[str, Any]:
    """Send `requests` from `concurrency` greenlets, after one each to connect and warm up."""
    import gevent
    import locust  # noqa: F401  # patches the process, as in a load worker
    from gevent.pool import Pool

    name, _, kind = client.partition("-")
    send = MAKERS[name](url, mode, decode=kind != "raw")
    first: dict[str, float] = {}

    def one(number: int) -> None:
        if number < concurrency:  # not all in the same moment
            gevent.sleep(number * NUM_EVENTS * GAP_S / concurrency if mode == "timed" else 0)
        session = f"{client}-{number}"
        first[session] = send(session)

    list(Pool(concurrency).imap_unordered(lambda n: send(f"warm-{n}"), range(concurrency)))
    cpu = time.process_time()
    list(Pool(concurrency).imap_unordered(one, range(requests)))
    return {"cpu_s": time.process_time() - cpu, "first": first}


def with_loadkit(url: str, mode: str, *, decode: bool) -> Send:
    from loadkit.client.endpoint import Endpoint
    from loadkit.client.receipt import Receipt
    from loadkit.client.stream import StreamClient

    client = StreamClient(Endpoint.parse(url))

    def send(session: str) -> float:
        request = client.prepare({"messages": []}, session=session, path=f"/{mode}")
        if not decode:
            receipt = Receipt()
            client.receive(client.connect(), request, receipt)
            assert receipt.ended == "complete", receipt.error
            return receipt.stamps[0]
        response = client.send(client.connect(), request)
        assert response.outcome == "ok", response.error
        assert response.first_token_at is not None
        return response.first_token_at

    return send


def reading_lines(lines_of: Callable[[str], Any], *, decode: bool) -> Send:
    """A client that hands out lines: when the first with content came, each decoded if wanted."""
    import orjson

    def send(session: str) -> float:
        first = 0.0
        for line in lines_of(session):
            if not first and '"content": "' in line:
                first = time.monotonic()
            if decode and line.startswith("data: {"):
                orjson.loads(line[6:])
        return first

    return send


def with_fasthttp(url: str, mode: str, *, decode: bool) -> Send:
    from locust import events
    from locust.contrib.fasthttp import FastHttpSession

    idle: list[Any] = []

    def lines_of(session: str) -> Any:
        client = idle.pop() if idle else FastHttpSession(url, events.request, None)
        headers = {"x-session-id": session}
        yield from client.iter_lines(f"/{mode}", method="POST", json={}, headers=headers)
        idle.append(client)

    return reading_lines(lines_of, decode=decode)


def with_httpuser(url: str, mode: str, *, decode: bool) -> Send:
    """HttpUser's session: requests with stream=True, read by lines of whatever has come."""
    from locust import events
    from locust.clients import HttpSession

    idle: list[Any] = []

    def lines_of(session: str) -> Any:
        client = idle.pop() if idle else HttpSession(url, events.request, None)
        headers = {"x-session-id": session}
        answer = client.post(f"/{mode}", json={}, headers=headers, stream=True)
        yield from answer.iter_lines(chunk_size=None, decode_unicode=True)
        idle.append(client)

    return reading_lines(lines_of, decode=decode)


def with_httpx(url: str, mode: str, *, decode: bool) -> Send:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.Client(base_url=url, limits=limits, timeout=60, trust_env=False, verify=False)

    def lines_of(session: str) -> Any:
        headers = {"x-session-id": session}
        with client.stream("POST", f"/{mode}", json={}, headers=headers) as answer:
            yield from answer.iter_lines()

    return reading_lines(lines_of, decode=decode)


MAKERS: dict[str, Any] = {
    "loadkit": with_loadkit,
    "fasthttp": with_fasthttp,
    "httpuser": with_httpuser,
    "httpx": with_httpx,
}


def measure(client: str, mode: str, requests: int, concurrency: int) -> dict[str, Any] | None:
    """One client against a fresh server, both in processes of their own. None: it failed."""
    script = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen([*script, "--serve"], stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        order = json.dumps([client, url, mode, requests, concurrency])
        try:
            done = subprocess.run(
                [*script, "--drive", order], capture_output=True, timeout=TIMEOUT_S, check=True
            )
            result = json.loads(done.stdout.splitlines()[-1])
            truth = fetch_truth(url)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"  {client} {mode}: {type(error).__name__}", file=sys.stderr)
            return None
        finally:
            server.stdin.close()
    errors = sorted(1000 * (at - truth[key]) for key, at in result["first"].items() if key in truth)
    return {"rate": requests / result["cpu_s"], "errors": errors}


def fetch_truth(url: str) -> dict[str, float]:
    import httpx

    truth: dict[str, float] = httpx.post(f"{url}/truth", content=b"x", trust_env=False).json()
    return truth


def compare_speed(clients: list[str], rounds: int) -> None:
    print(f"requests of 64 events per CPU-second, {CONCURRENCY} at a time")
    for mode, requests in (("burst", 1000), ("writes", 400)):
        for kind in ("decoded", "raw"):
            rates: dict[str, list[float]] = {client: [] for client in clients}
            for _ in range(rounds):
                for client in clients:
                    if row := measure(f"{client}-{kind}", mode, requests, CONCURRENCY):
                        rates[client].append(row["rate"])
            medians = {name: statistics.median(rate) for name, rate in rates.items() if rate}
            base = medians.get("fasthttp")
            for name, rate in medians.items():
                ratio = f"{rate / base:5.1f} x" if base else ""
                print(f"  {mode:7} {kind:8} {name:9} {rate:8,.0f}  {ratio}", flush=True)


def compare_timing(clients: list[str], streams: list[int]) -> None:
    print("TTFT error in ms, p50 / p99, an event every 20 ms")
    for number in streams:
        for client in clients:
            row = measure(f"{client}-decoded", "timed", max(2 * number, 10), number)
            if row is not None and row["errors"]:
                errors = row["errors"]
                p50, p99 = errors[len(errors) // 2], errors[int(0.99 * (len(errors) - 1))]
                print(f"  {number:5} streams {client:9} {p50:8.2f} / {p99:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", default="1,50,200,1000")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    from loadkit.calibrate.limits import allow_many_files

    allow_many_files()
    clients = options.clients.split(",")
    if options.serve:
        import uvloop

        uvloop.run(serve())
    elif options.drive:
        print(json.dumps(drive(*json.loads(options.drive))))
    else:
        compare_speed(clients, options.rounds)
        compare_timing(clients, [int(number) for number in options.streams.split(",")])


if __name__ == "__main__":
    main()
