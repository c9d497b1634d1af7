"""Realistic run folders without a server: words as tokens, an ideal cache, invented latencies.

Cached tokens are what the analyzer predicts (these tests judge the report, not the analyzer).
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loadkit import analysis
from loadkit.core.tokenizer import load_tokenizer
from loadkit.runs.context import PrefixCounters, RunContext
from loadkit.runs.folder import finish_run
from loadkit.runs.journal import JournalWriter
from loadkit.runs.record import Record
from loadkit.runs.sent import write_sent
from loadkit.traces import read_log

BLOCK_SIZE = 16
VOCABULARY = [f"word{number}" for number in range(2000)]
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"

HOSTILE = (
    "<script>alert(1)</script>\" onload='x' | [a](javascript:b) \u202e\x1b[31m {{7*7}} </style>"
    " </title><img src=http://127.0.0.1:9/i onerror=alert(2)><svg onload=alert(3)> ]]> &#60;b&#62;"
)


@dataclass(frozen=True)
class Example:
    """A staging run of replays, a production-like run, the forecast of its log, the verdict."""

    tokenizer: str
    staging: Path
    production: Path
    expected: dict[str, Any]
    gate: dict[str, Any]


def word_tokenizer(folder: Path) -> str:
    """Save a tokenizer of one token a word; returns its folder."""
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(VOCABULARY)}, unk_token="word0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE).save_pretrained(folder)
    return str(folder)


def production_records(sessions: int, seed: int) -> list[Record]:
    """Conversations of 1 to 5 turns under four system prompts."""
    rng = random.Random(seed)
    systems = [_words(rng, 110) for _ in range(4)]
    records = []
    for number in range(sessions):
        history = [{"role": "system", "content": rng.choices(systems, (8, 4, 2, 1))[0]}]
        start = 2.0 * number + rng.random()
        for turn in range(rng.choice((1, 1, 2, 3, 5))):
            history = [*history, {"role": "user", "content": _words(rng, rng.randint(30, 140))}]
            reply = _words(rng, rng.randint(20, 60))
            records.append(_record(f"s{number}", turn, start + 5 * turn, history, reply))
            history = [*history, {"role": "assistant", "content": reply}]
    return records


def staging_records(prompts: int, requests: int, seed: int) -> list[Record]:
    """A few prompts of production, over and over, each time in a session of its own."""
    rng = random.Random(seed)
    chosen = production_records(prompts * 3, seed)[:prompts]
    return [
        _record(f"r{n}", 0, 0.7 * n, rng.choice(chosen).messages, _words(rng, 30))
        for n in range(requests)
    ]


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=count))


def _record(
    session: str, turn: int, at_s: float, messages: list[dict[str, Any]], reply: str
) -> Record:
    return Record(
        session=session,
        turn=turn,
        name="chat",
        worker=0,
        outcome="ok",
        intended_s=at_s,
        sent_s=at_s,
        completed_s=at_s + 1.0,
        status=200,
        finish_reason="stop",
        output_tokens=len(reply.split()),
        messages=messages,
        reply=reply,
    )


def make_run(
    out: Path,
    records: list[Record],
    *,
    tokenizer: str,
    capacity_blocks: int,
    seed: int = 1,
    extra: list[Record] | None = None,
    **context: Any,
) -> dict[str, Any]:
    """Let an ideal cache answer the records and finish a run of them."""
    rng = random.Random(seed)
    answered = _answer(
        sorted(records, key=lambda r: r.sent_s or 0.0), tokenizer, capacity_blocks, rng
    )
    hits, queries = (
        sum(getattr(r, k) for r in answered) for k in ("cached_tokens", "prompt_tokens")
    )
    values: dict[str, Any] = {
        "tokenizer": tokenizer,
        "block_size": BLOCK_SIZE,
        "capacity_blocks": capacity_blocks,
        "duration_s": max(r.completed_s or 0.0 for r in answered),
        "counters_before": PrefixCounters("vllm", 1000, 10),
        "counters_after": PrefixCounters("vllm", 1000 + queries, 10 + hits),
        "seed": seed,
    }
    return finish(out, [*answered, *(extra or [])], **{**values, **context})


def finish(out: Path, records: list[Record], **context: Any) -> dict[str, Any]:
    """Finish a run of exactly these records."""
    values: dict[str, Any] = {
        "profile": {"name": "chat-assistant"},
        "url": "http://127.0.0.1:8000",
        "model": "SmolLM2-135M-Instruct",
        "seed": 1,
        "started_unix_s": 1.78e9,
        "duration_s": 60.0,
        "processes": 1,
        "loop": "open",
        "kind": "conversation",
        "scheduled": len(records),
        "versions": {"loadkit": "0.1.0", "locust": "2.47.0", "python": "3.11.9"},
    }
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "journals").mkdir()
        with JournalWriter(Path(scratch) / "journals" / "worker-0.journal") as journal:
            for record in records:
                journal.append(record)
        return finish_run(Path(scratch), out, RunContext(**{**values, **context}))


def _answer(
    records: list[Record], tokenizer: str, capacity_blocks: int, rng: random.Random
) -> list[Record]:
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "sent.jsonl.gz"
        write_sent(records, log)
        loaded = load_tokenizer(tokenizer)
        trace = read_log([log], format="openai", tokenizer=loaded, block_size=BLOCK_SIZE).trace
    predicted = analysis.per_request(trace, capacity_blocks)
    answered = []
    for row, record in enumerate(records):
        prompt, cached = int(trace.prompt_tokens[row]), int(predicted.resident_tokens[row])
        ttft = 0.04 + 0.0021 * (prompt - cached) * rng.lognormvariate(0, 0.25)
        gaps = [0.03 * rng.lognormvariate(0, 0.2) for _ in range((record.output_tokens or 1) - 1)]
        first = (record.sent_s or 0.0) + ttft
        answered.append(
            msgspec.structs.replace(
                record,
                sent_s=(record.sent_s or 0.0) + 0.0006 * rng.random(),
                first_token_s=first,
                last_token_s=first + sum(gaps),
                completed_s=first + sum(gaps) + 0.002,
                gaps_s=gaps,
                prompt_tokens=prompt,
                cached_tokens=cached,
            )
        )
    return answered


def hostile_run(out: Path, tokenizer: str, records: list[Record] | None = None) -> dict[str, Any]:
    """A run whose every foreign string is an attack; returns a verdict full of them too."""
    make_run(
        out,
        records or production_records(6, 1),
        tokenizer=tokenizer,
        capacity_blocks=500,
        model=HOSTILE,
        profile={"name": HOSTILE},
        kind=HOSTILE,
        versions={HOSTILE: HOSTILE},
        notes=[HOSTILE],
    )
    reason = {"code": HOSTILE, "message": HOSTILE, "remedy": HOSTILE}
    return {"schema": "loadkit.gate/1", "verdict": HOSTILE, "reasons": [reason]}
