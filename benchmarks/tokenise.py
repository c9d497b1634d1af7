"""Speed of reading a text log (tokenise and hash) beside `tokenizers` batch encoding alone.

    python benchmarks/tokenise.py LOG... --tokenizer PATH [--format NAME] [--rows N] [--repeat N]

Both see the same rendered texts, in the same process, on the same cores, in turns, so that other
work on the machine falls on both; the best of several runs counts. Raw is
`tokenizers.Tokenizer.encode_batch` of all texts in one call, and `encode_batch_fast`, which makes
no offsets; neither is asked for the ids. Ours turns the requests into a Trace: batches encoded
ahead, ids taken, blocks hashed, prompts keyed, texts kept for the audit. Rendering the chat
template is done before, for all. CPU seconds a wall second tell how many cores were really used.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.traces.lines import Place
from loadkit.traces.reading import Reading
from loadkit.traces.registry import detect, text_requests
from loadkit.traces.texts import TextRequest, rendered, text_trace


def texts_of(
    paths: list[Path], format: str, tokenizer: Tokenizer, rows: int | None
) -> list[tuple[Place, str, TextRequest]]:
    """Places, rendered prompts and requests of a log; replies are left out."""
    name = detect(paths) if format == "auto" else format
    requests, _ = text_requests(name, Reading(paths))
    out = []
    for place, request in islice(requests, rows):
        text = rendered(place, request, tokenizer) or request.prompt
        if isinstance(text, str):
            out.append((place, text, request))
    return out


def measured(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(rows: list[tuple[Place, str, TextRequest]], tokenizer: Tokenizer, repeat: int) -> None:
    """Print the speeds and the ratios."""
    texts = [text for _, text, _ in rows]
    raw = tokenizer.hf.backend_tokenizer
    requests = [(place, TextRequest(prompt=text)) for place, text, _ in rows]
    prompt_tokens = [0]

    def ours() -> None:
        trace = text_trace(Reading([]), requests, tokenizer)
        prompt_tokens[0] = int(trace.prompt_tokens.sum())

    calls = {
        "tokenizers encode_batch": lambda: raw.encode_batch(texts, add_special_tokens=True),
        "tokenizers encode_batch_fast": lambda: raw.encode_batch_fast(texts),
        "loadkit, tokenise and hash": ours,
    }
    for call in calls.values():
        call()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            times[name].append(measured(call))
    best = {name: min(runs) for name, runs in times.items()}
    print(f"{len(texts):,} prompts, {prompt_tokens[0]:,} tokens")
    for name, (wall, cpu) in best.items():
        speed = prompt_tokens[0] / wall / 1e6
        print(f"{name:30s} {speed:6.2f} M tokens/s, {cpu / wall:4.2f} cores used")
    mine = best["loadkit, tokenise and hash"]
    for name in list(calls)[:2]:
        wall, cpu = best[name]
        print(f"speed of loadkit / {name}: {wall / mine[0]:.2f} (CPU time: {cpu / mine[1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--format", default="auto")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    tokenizer = load_tokenizer(asked.tokenizer)
    compare(texts_of(asked.logs, asked.format, tokenizer, asked.rows), tokenizer, asked.repeat)


if __name__ == "__main__":
    main()
