"""How much the bundled corpora repeat, beside texts that people wrote.

    python benchmarks/corpus_repeats.py [TOKENIZER]     default: SmolLM2-135M-Instruct

Some 60,000 tokens of each kind of text. Printed, in percent: n-grams of 4, 8 and 16 tokens that had
stood before anywhere, and blocks of 16 tokens from the start of a text that another text had
too. The last column is the ratio of xz. A prefix cache sees none of it but equal beginnings, which the
freshness check of a plan counts. LOADKIT_DATA: folder with arena_hard and tau_bench, if present.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from transformers import AutoTokenizer

from loadkit import corpora
from reference_server.weights import prepare_default_model

NUM_TOKENS, BLOCK = 60_000, 16
PIECES = {"message": 5, "system": 30, "document": 60, "item": 4, "result": 25}


def grams(ids: list[int], size: int, step: int = 1) -> Iterator[tuple[int, ...]]:
    return (tuple(ids[at : at + size]) for at in range(0, len(ids) - size + 1, step))


def repeated(texts: list[list[int]], size: int, step: int = 1) -> float:
    """Share of windows of `size` tokens that had stood before."""
    seen = [gram for ids in texts for gram in grams(ids, size, step)]
    return 100 * (1 - len(set(seen)) / len(seen)) if seen else 0.0


def measure(name: str, texts: Iterable[str], tokenizer: Any) -> None:
    taken: list[list[int]] = []
    raw: list[str] = []
    for text in texts:
        taken.append(tokenizer(text).input_ids)
        raw.append(text)
        if sum(map(len, taken)) > NUM_TOKENS:
            break
    data = "\n".join(raw).encode()
    shares = [repeated(taken, size) for size in (4, 8, 16)] + [repeated(taken, BLOCK, BLOCK)]
    ratio = len(data) / len(lzma.compress(data, preset=9))
    print(
        f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} | {ratio:.1f} |", flush=True
    )


def of_people(folder: Path) -> Iterator[tuple[str, list[str]]]:
    arena, tau = folder / "arena_hard_v0.1.jsonl.gz", folder / "tau_bench_airline_gpt4o.json.gz"
    if arena.is_file():
        with gzip.open(arena, "rt") as lines:
            yield "people's prompts (arena-hard)", [json.loads(line)["prompt"] for line in lines]
    if tau.is_file():
        talks = json.loads(gzip.decompress(tau.read_bytes()))
        for role, name in (("user", "customers"), ("tool", "tool results")):
            said = [m["content"] or "" for t in talks for m in t["traj"] if m["role"] == role]
            yield f"{name} (tau-bench airline)", said


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(
        sys.argv[1] if len(sys.argv) > 1 else str(prepare_default_model())
    )
    for name in corpora.names():
        corpus, rng = corpora.load(name), Random(5)
        for what, pieces in PIECES.items():
            if corpus.makes(what):
                made = (corpus.text(what, rng, pieces) for _ in range(1000))  # type: ignore[arg-type]
                measure(f"{name}, {what}", made, tokenizer)
    for name, texts in of_people(Path(os.environ.get("LOADKIT_DATA", "."))):
        measure(name, texts, tokenizer)


if __name__ == "__main__":
    main()
