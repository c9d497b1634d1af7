"""A small tokenizer that knows the bundled corpus's words, and chat logs of words that it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import tiny_model
from tiny_model import CHAT_TEMPLATE as CHATML

from loadkit import corpora
from loadkit.core.tokenizer import Tokenizer
from loadkit.synthesize.words import corpus_words

# Nothing of these can come out of the corpus.
SECRET_WORDS = ("zanzibar", "quetzal", "xylograph", "okapi", "fjord", "jukebox", "wyvern", "pyx")


def make_tokenizer(template: str = CHATML) -> Tokenizer:
    words = corpus_words(corpora.load("assistant-chat"))
    texts = [f"{word} {word}" for word in words * 2]
    return Tokenizer(tiny_model.make_tokenizer(texts, 4000, template), "small")


def secret_text(rng: Random, words: int) -> str:
    return " ".join(rng.choice(SECRET_WORDS) + str(rng.randrange(100)) for _ in range(words))


def chat_rows(seed: int, sessions: int, *, replies: bool = True) -> list[dict[str, Any]]:
    """Sessions over an hour: one of 5 system prompts, up to 4 turns; a fifth asks a common question."""
    rng = Random(seed)
    systems = [secret_text(rng, 20 + 10 * number) for number in range(5)]
    common = [secret_text(rng, 8) for _ in range(3)]
    rows = []
    for number in range(sessions):
        time_s = rng.uniform(0, 3300)
        history = [{"role": "system", "content": systems[min(int(rng.expovariate(0.7)), 4)]}]
        for turn in range(rng.randint(1, 4)):
            ask = common[rng.randrange(3)] if turn == 0 and rng.random() < 0.2 else None
            history.append({"role": "user", "content": ask or secret_text(rng, rng.randint(2, 20))})
            answer = secret_text(rng, rng.randint(1, 20))
            row = {
                "timestamp": time_s,
                "session_id": f"secret-{number}",
                "messages": list(history),
                "response": {"content": answer, "finish_reason": "stop", "latency_s": 1.0},
            }
            if not replies:
                del row["response"]
            rows.append(row)
            history.append({"role": "assistant", "content": answer})
            time_s += rng.uniform(5, 60)
    return sorted(rows, key=lambda row: row["timestamp"])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
