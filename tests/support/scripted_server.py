"""An OpenAI-like server that knows the truth about its own timing. Shares no code with loadkit.

Run as a program. It prints its port, then logs one JSON line per request to --log: when the request
was read, when the first and the last token were handed to the socket (CLOCK_MONOTONIC, which all
processes of a machine share), and whether the answer was finished.

Each answer has --tokens tokens "w0 ", "w1 ", ...; prompt tokens are the words of the messages;
cached tokens are the words of the leading messages that an earlier request had as well.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from pathlib import Path

seen = []
counters = {"queries": 0, "hits": 0}


def words(messages):
    return sum(len(message["content"].split()) for message in messages)


def cached_words(messages):
    best = 0
    for earlier in seen:
        same = 0
        while same < min(len(earlier), len(messages)) and earlier[same] == messages[same]:
            same += 1
        best = max(best, words(messages[:same]))
    seen.append(messages)
    return best


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(body):
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def plain(status, body, kind=b"application/json"):
    head = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (status, kind, len(body)) + body


class Server:
    def __init__(self, options):
        self.options = options
        self.log = Path(options.log).open("a", buffering=1)  # noqa: SIM115

    async def serve(self, reader, writer):
        try:
            while await self.one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        read_at = time.monotonic()
        path = lines[0].split()[1]
        if self.options.key and headers.get("authorization") != f"Bearer {self.options.key}":
            writer.write(plain(401, b'{"error": {"message": "bad key"}}'))
            return True
        if path == "/v1/models":
            rows = [{"id": name} for name in ["scripted", *self.leaks()]]
            writer.write(plain(200, json.dumps({"data": rows}).encode()))
            return True
        if path == "/metrics":
            said = "".join(
                f'# HELP leak {key}\nloadkit:prefix_cache_tokens_total{{cause="{key}"}} 1\n'
                f'vllm:cache_config_info{{engine="{key}",block_size="16"}} 1\n'
                for key in self.leaks()
            )
            text = said + "".join(
                f"# TYPE vllm:prefix_cache_{k} counter\nvllm:prefix_cache_{k}_total {v}\n"
                for k, v in counters.items()
            )
            writer.write(plain(200, text.encode(), b"text/plain"))
            return True
        if path != "/v1/chat/completions":
            writer.write(plain(404, b"{}"))
            return True
        return await self.complete(json.loads(body), headers, read_at, writer)

    def leaks(self):
        """The key, its first and its last ten characters, where they are to be told everywhere."""
        key = self.options.key
        return [key, key[:10], key[-10:]] if self.options.mode == "leak" else []

    async def complete(self, request, headers, read_at, writer):
        options = self.options
        messages = request["messages"]
        session = re.sub(r"\.[0-9a-f]{8}$", "", headers["x-session-id"])  # without the run's id
        row = {"session": session, "read": read_at, "messages": messages}
        if options.mode == "echo":  # a careless server that repeats what it was sent
            said = {"error": {"message": f"you sent {headers.get('authorization')}"}}
            writer.write(plain(500, json.dumps(said).encode()))
            return True
        if options.mode == "busy":
            self.log.write(json.dumps({**row, "finished": False}) + "\n")
            writer.write(plain(503, b'{"error": {"message": "queue full"}}'))
            return True
        prompt, cached = words(messages), cached_words(messages)
        if options.lie != "frozen":
            counters["queries"] += prompt
            counters["hits"] += cached
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        writer.write(chunk(event({"choices": [{"delta": {"role": "assistant", "content": None}}]})))
        for key in self.leaks():
            call = {"index": 0, "id": key, "function": {"name": key, "arguments": key}}
            for delta in (
                {"content": key[:4]},
                {"content": key[4:]},
                {"reasoning_content": key},
                {"tool_calls": [call]},
            ):
                said = {"id": key, "model": key, "system_fingerprint": key}
                said["choices"] = [{"delta": delta, "finish_reason": key}]
                writer.write(chunk(event(said)))
        num_tokens = min(options.tokens, request["max_tokens"])
        for number in range(num_tokens):
            await asyncio.sleep(options.gap if number else options.ttft)
            row["last"] = time.monotonic()
            row.setdefault("first", row["last"])
            writer.write(chunk(event({"choices": [{"delta": {"content": f"w{number} "}}]})))
            await writer.drain()
            if options.mode == "cut" and number == 1:
                self.log.write(json.dumps({**row, "finished": False}) + "\n")
                return False
        details = {"cached_tokens": str(cached) if options.lie == "strings" else cached}
        usage = {"prompt_tokens": prompt, "completion_tokens": num_tokens}
        usage["prompt_tokens_details"] = details
        usage["loadkit"] = dict.fromkeys(self.leaks(), 1)
        reason = "".join(self.leaks()) or "length"
        writer.write(chunk(event({"choices": [{"delta": {}, "finish_reason": reason}]})))
        writer.write(chunk(event({"choices": [], "usage": usage})))
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        self.log.write(json.dumps({**row, "finished": True, "cached": cached}) + "\n")
        return True


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--ttft", type=float, default=0.02)
    parser.add_argument("--gap", type=float, default=0.005)
    parser.add_argument("--mode", choices=("ok", "cut", "busy", "echo", "leak"), default="ok")
    parser.add_argument("--lie", choices=("none", "strings", "frozen"), default="none")
    parser.add_argument("--key")
    options = parser.parse_args()
    server = await asyncio.start_server(Server(options).serve, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Ends when whoever started it closes its standard input (or dies).
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
