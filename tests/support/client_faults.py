"""What a server, or the way to it, can do to a client, and what the client must make of it.

`python tests/support/client_faults.py` prints the table of docs/client-faults.md.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from byte_server import HEAD, Step, chunked, half_close, reset, sized

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
HELLO = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'
WORLD = 'data: {"choices":[{"delta":{"content":" wörld 🌍"}}]}\n\n'.encode()
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
EVENTS = (ROLE, HELLO, WORLD, FINISH, USAGE, DONE)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
OPEN = HEAD + b"\r\n"
WHOLE = CHUNKED + b"".join(chunked(*EVENTS))
BODY = b"".join(EVENTS)
JSON = b"application/json"

Steps = Callable[[random.Random], Sequence[Step]]


@dataclass(frozen=True)
class Fault:
    """what: in a user's words. steps: what the server does, by a seeded choice. outcome: its label
    in the record. says: part of the error's text, None: no error. limits: of Timeouts."""

    what: str
    steps: Steps
    outcome: str
    says: str | None
    limits: dict[str, float] = field(default_factory=dict)


def cut_between(start: bytes, end: bytes) -> Steps:
    """WHOLE up to a place after the end of `start` and before the end of `end`."""
    first = WHOLE.index(start) + len(start)
    last = WHOLE.index(end) + len(end) - 1
    return lambda rng: [WHOLE[: rng.randint(first, last)]]


def pieces(whole: bytes) -> Steps:
    def steps(rng: random.Random) -> list[Step]:
        places = [0, *sorted(rng.sample(range(1, len(whole)), 20)), len(whole)]
        return [whole[a:b] for a, b in pairwise(places)]

    return steps


def say(*steps: Step) -> Steps:
    return lambda rng: steps


def stream(*events: bytes) -> Steps:
    return say(CHUNKED, *chunked(*events))


def noise(rng: random.Random) -> Sequence[Step]:
    """Bytes that cannot begin an HTTP answer."""
    return [b"\x00" + rng.randbytes(200)]


def broken_after(end: Step) -> Steps:
    """The stream up to some whole event before the last word, then `end`."""
    return lambda rng: [CHUNKED, *chunked(*EVENTS)[: rng.randint(1, 3)], 0.02, end]


def bad_byte(rng: random.Random) -> Sequence[Step]:
    """A control character or half a character somewhere inside an event's text."""
    place, byte = rng.randint(0, 5), rng.choice([b"\x00", b"\x01", b"\xff", b"\xc3"])
    return stream(HELLO[:-10][:36] + b"Hello"[:place] + byte + b'"}}]}\n\n', FINISH, DONE)(rng)


def torn(rng: random.Random) -> Sequence[Step]:
    """The length given ends inside an event's JSON; the rest comes all the same."""
    length = rng.randint(len(ROLE) + 10, len(ROLE + HELLO) - 4)
    return [SHORT % (HEAD, length, BODY)]


GZIPPED = sized(gzip.compress(BODY)).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
BIG = b'data: {"choices":[{"delta":{"content":"' + b"x" * 10_000_000 + b'"}}]}\n\n'
DEEP = b'data: {"choices":[],"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n\n"
HUGE = USAGE.replace(b":9,", b":900000000000000000000000,")
IDS = b'data: {"choices":[{"delta":{"content":"x"},"token_ids":[7,%d]}]}\n\n'
LONE = b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n'
BUSY = b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
MOVED = b"HTTP/1.1 307 X\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n"
SHORT = b"%sContent-Length: %d\r\n\r\n%s"

FAULTS = (
    Fault("closes without a byte", say(), "cut", "closed before an answer"),
    Fault("resets the connection at once", say(reset), "cut", "connection lost"),
    Fault("resets in the middle of the stream", broken_after(reset), "cut", "connection lost"),
    Fault("half-closes in the middle", broken_after(half_close), "cut", "in the middle"),
    Fault("sends noise", noise, "malformed", "not HTTP"),
    Fault("is a TLS port", say(b"\x15\x03\x01\x00\x02\x02\x46"), "malformed", "not HTTP"),
    Fault("sends NUL bytes before its answer", say(b"\0\0" + WHOLE), "malformed", "not HTTP"),
    Fault("sends a chunk size that is none", say(CHUNKED, b"zz\r\n"), "malformed", "not HTTP"),
    Fault(
        "gives a length and chunks both",
        say(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n"), *chunked(*EVENTS)),
        "malformed",
        "not HTTP",
    ),
    Fault(
        "wants another protocol (101)",
        say(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        "malformed",
        "another protocol",
    ),
    Fault("is cut in a header", cut_between(b"HTTP", b"Content-T"), "cut", "before an answer"),
    Fault("is cut in a chunk's size", say(CHUNKED + b"3"), "cut", "in the middle"),
    Fault("is cut inside a chunk", cut_between(ROLE, HELLO), "cut", "in the middle"),
    Fault(
        "is cut inside a character",
        cut_between(b"w\xc3", "ö".encode()[1:] + "rld 🌍".encode()),
        "cut",
        "in the middle",
    ),
    Fault("is cut before [DONE]", cut_between(USAGE, b"data: [DONE]"), "cut", "in the middle"),
    Fault("ends without finish_reason and [DONE]", stream(ROLE, HELLO), "cut", "without finish"),
    Fault(
        "sends one byte at a time",
        lambda _: [WHOLE[i : i + 1] for i in range(len(WHOLE))],
        "ok",
        None,
    ),
    Fault("cuts its stream anywhere", pieces(WHOLE), "ok", None),
    Fault("cuts a close-delimited stream anywhere", pieces(OPEN + BODY), "ok", None),
    Fault(
        "ends its lines in CRLF, cut anywhere",
        pieces(OPEN + BODY.replace(b"\n", b"\r\n")),
        "ok",
        None,
    ),
    Fault("speaks HTTP/1.0", pieces(OPEN.replace(b"/1.1", b"/1.0") + BODY), "ok", None),
    Fault(
        "sends 100 and 103 first",
        say(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + WHOLE),
        "ok",
        None,
    ),
    Fault("sends a second answer unasked", say(WHOLE + WHOLE), "ok", None),
    Fault(
        "uses chunk extensions and trailers",
        say(CHUNKED + b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(BODY), BODY)),
        "ok",
        None,
    ),
    Fault(
        "never ends its stream",
        say(CHUNKED, *[0.01, *chunked(HELLO)[:-1]] * 500),
        "timeout",
        "no complete answer within 0.3 s",
        {"total_s": 0.3},
    ),
    Fault(
        "falls silent",
        say(CHUNKED, *chunked(HELLO)[:-1], 30.0),
        "timeout",
        "silent for 0.15 s",
        {"idle_s": 0.15},
    ),
    Fault(
        "never answers",
        say(30.0),
        "timeout",
        "no first token within 0.15 s",
        {"first_token_s": 0.15},
    ),
    Fault(
        "only keeps the connection alive",
        say(CHUNKED, *chunked(ROLE)[:-1], *[0.01, b"8\r\n: ping\n\n\r\n"] * 500),
        "timeout",
        "no first token within 0.15 s",
        {"first_token_s": 0.15},
    ),
    Fault(
        "drips its headers",
        say(*[s for b in OPEN * 9 for s in (0.01, bytes([b]))]),
        "timeout",
        "no complete answer",
        {"total_s": 0.3},
    ),
    Fault(
        "sends headers without end",
        say(b"HTTP/1.1 200 OK\r\n", *[b"X-Pad: %s\r\n" % (b"x" * 60_000)] * 40),
        "malformed",
        "headers larger",
    ),
    Fault(
        "sends one header of 3 MB",
        say(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 3_000_000),
        "malformed",
        "headers larger",
    ),
    Fault(
        "sends more than 64 MiB",
        say(OPEN, *[b"data: " + b"x" * 4_000_000] * 18),
        "cancelled",
        "larger than 64 MiB",
    ),
    Fault("sends an event of 10 MB", stream(BIG, FINISH, DONE), "ok", None),
    Fault(
        "sends an event that is no JSON",
        stream(HELLO, b"data: {nope\n\n", FINISH, DONE),
        "malformed",
        "not a JSON answer",
    ),
    Fault(
        "sends JSON of another shape",
        stream(HELLO, b'data: {"choices":[7]}\n\n', FINISH, DONE),
        "malformed",
        "not a JSON answer",
    ),
    Fault("sends control bytes or half characters", bad_byte, "malformed", "not a JSON answer"),
    Fault(
        "nests its JSON 200,000 deep",
        stream(HELLO, DEEP, FINISH, DONE),
        "malformed",
        "not a JSON answer",
    ),
    Fault(
        "reports usage twice",
        stream(HELLO, USAGE.replace(b":4", b":1"), FINISH, USAGE, DONE),
        "ok",
        None,
    ),
    Fault(
        "reports more cached than prompt tokens",
        stream(HELLO, FINISH, USAGE.replace(b":4", b":40"), DONE),
        "ok",
        "not believed",
    ),
    Fault(
        "reports a number of tokens that cannot be", stream(HELLO, FINISH, HUGE, DONE), "ok", None
    ),
    Fault(
        "sends a token id of 70 bits",
        stream(HELLO, IDS % (1 << 70), FINISH, USAGE, DONE),
        "ok",
        "not believed: a token id",
    ),
    Fault(
        "sends a negative token id",
        stream(HELLO, IDS % -1, FINISH, USAGE, DONE),
        "ok",
        "not believed: a token id",
    ),
    Fault(
        "sends a number of 5,000 digits",
        stream(HELLO, IDS % int("9" * 4000), IDS.replace(b"%d", b"9" * 5000), FINISH, DONE),
        "malformed",
        "not a JSON answer",
    ),
    Fault(
        "gives too great a length",
        say(SHORT % (HEAD, len(BODY) + 9, BODY[:-20])),
        "cut",
        "in the middle",
    ),
    Fault("gives too small a length", torn, "malformed", "not a JSON answer"),
    Fault("compresses unasked", say(GZIPPED), "malformed", "content-encoding gzip"),
    Fault("redirects", say(MOVED), "http_error", "redirected to https://elsewhere.example/"),
    Fault(
        "answers 200 with an error",
        say(sized(b'{"error":{"message":"no GPU"}}', kind=JSON)),
        "http_error",
        "no GPU",
    ),
    Fault(
        "reports an error in the stream",
        stream(HELLO, b'data: {"error":{"message":"engine died"}}\n\n', DONE),
        "cut",
        "engine died",
    ),
    Fault("answers 200 with nothing", say(sized(b"", kind=JSON)), "malformed", "not a JSON answer"),
    Fault("opens a stream and says nothing", say(sized(b"")), "cut", "without finish_reason"),
    Fault("answers 204", say(b"HTTP/1.1 204 No Content\r\n\r\n"), "malformed", "not a JSON answer"),
    Fault("turns the request away (429)", say(BUSY), "http_error", ""),
    Fault(
        "answers with a page of HTML",
        say(sized(b"<h1>Bad\x07 Gateway</h1>", b"502 X", b"text/html")),
        "http_error",
        "Bad Gateway",
    ),
    Fault(
        "sends half of a surrogate pair",
        stream(HELLO, LONE, FINISH, DONE),
        "malformed",
        "not a JSON answer",
    ),
)


def table() -> str:
    rows = ["| the server … | outcome | the error says |", "|---|---|---|"]
    for fault in FAULTS:
        says = "" if not fault.says else f"… {fault.says} …"
        rows.append(f"| {fault.what} | {fault.outcome} | {says} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
