"""Servers that tell the truth of their cache, and servers that do not, in virtual time.

A world is a plan of sessions and a cache of whole blocks that never fills; what it really does is
computed here by comparing word by word, not by loadkit. A `Lie` changes what the server's answers or
its counters say of it, never what it does. The run folder is made by the run's own code from journals
and counter readings, the forecast from the log of another day of the same world, and the gate judges.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loadkit.core.tokenizer import load_tokenizer
from loadkit.forecast import forecast
from loadkit.gate import Verdict, decide_folder
from loadkit.runs.context import CounterSample, PrefixCounters, RunContext
from loadkit.runs.folder import finish_run
from loadkit.runs.journal import JournalWriter
from loadkit.runs.record import Record
from loadkit.traces import read_log

BLOCK, BLOCKS = 16, 100_000
WORDS = [f"w{number}" for number in range(4000)]
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
WITNESSES = ("all three", "no counters", "no usage")


@dataclass(frozen=True)
class Truth:
    """One request as it really was. at_s: when the server looked its prompt up and counted it."""

    session: str
    turn: int
    sent_s: float
    at_s: float
    completed_s: float
    messages: list[dict[str, str]]
    reply: list[str]
    prompt_tokens: int
    cached_tokens: int


def world(seed: int, sessions: int = 30) -> list[Truth]:
    """A service with four system prompts, new sessions every other second, two to four turns each."""
    random = np.random.default_rng([seed, 41])
    prompts = [_words(np.random.default_rng([number, 43]), 90 + 20 * number) for number in range(4)]
    asked: list[tuple[float, str, int, list[dict[str, str]], list[str]]] = []
    for number in range(sessions):
        chosen = int(random.choice(4, p=[0.4, 0.3, 0.2, 0.1]))
        history = [{"role": "system", "content": " ".join(prompts[chosen])}]
        at_s = 2.0 * number + float(random.random())
        for turn in range(2 + int(random.integers(3))):
            text = " ".join(_words(random, int(random.integers(20, 60))))
            history = [*history, {"role": "user", "content": text}]
            reply = _words(random, 20)
            asked.append((at_s, f"s{number}", turn, history, reply))
            history = [*history, {"role": "assistant", "content": " ".join(reply)}]
            at_s += 2.0 + 3.0 * float(random.random())
    return _served(sorted(asked, key=lambda one: one[0]))


def _words(random: np.random.Generator, count: int) -> list[str]:
    return [WORDS[index] for index in random.integers(len(WORDS), size=count)]


def _served(asked: list[tuple[float, str, int, list[dict[str, str]], list[str]]]) -> list[Truth]:
    """What an endless cache of whole blocks finds of each prompt; a prompt is in it once it is looked
    up, a reply once it is complete, but for its last token, which no step ever reads."""
    kept: set[tuple[str, ...]] = set()
    waiting: list[tuple[float, list[str]]] = []
    found = []
    for sent_s, session, turn, messages, reply in asked:
        at_s, words = sent_s + 0.05, " ".join(m["content"] for m in messages).split()
        for entry in [entry for entry in waiting if entry[0] <= at_s]:
            _keep(kept, entry[1])
            waiting.remove(entry)
        blocks = 0
        while (blocks + 1) * BLOCK < len(words) and tuple(words[: (blocks + 1) * BLOCK]) in kept:
            blocks += 1
        _keep(kept, words)
        completed_s = sent_s + 1.0
        waiting.append((completed_s, [*words, *reply[:-1]]))
        found.append(
            Truth(
                session,
                turn,
                sent_s,
                at_s,
                completed_s,
                messages,
                reply,
                len(words),
                blocks * BLOCK,
            )
        )
    return found


def _keep(kept: set[tuple[str, ...]], words: list[str]) -> None:
    kept.update(tuple(words[: end * BLOCK]) for end in range(1, len(words) // BLOCK + 1))


Answers = Callable[[list[Truth]], list[dict[str, Any]]]
Page = Callable[[float, float, float, float], tuple[float, float]]


@dataclass(frozen=True)
class Lie:
    """answers: what each answer says in place of its own count. page: (seconds, share of the run that
    is over, true look-ups, true hits) -> the counters that are shown. None: the truth."""

    name: str
    answers: Answers | None = None
    page: Page | None = None
    unlisted: bool = field(default=False)

    def applies(self, witnesses: str) -> bool:
        """Whether there is anybody who lies where only these witnesses are heard."""
        if witnesses == "no counters":
            return self.answers is not None
        return self.page is not None if witnesses == "no usage" else True


def cached(change: Callable[[Truth], int]) -> Answers:
    """Every answer says another count, made from what is true of it alone."""
    return lambda truth: [{"cached_tokens": change(one)} for one in truth]


def whole(tokens: float) -> int:
    return int(tokens) // BLOCK * BLOCK


def _noise(blocks: int) -> Answers:
    """Up to so many blocks more or less, never beyond what a prompt has."""

    def answers(truth: list[Truth]) -> list[dict[str, Any]]:
        random = np.random.default_rng(5)
        offsets = BLOCK * random.integers(-blocks, blocks + 1, size=len(truth))
        limits = [whole(one.prompt_tokens - 1) for one in truth]
        return [
            {"cached_tokens": int(min(max(0, one.cached_tokens + offset), limit))}
            for one, offset, limit in zip(truth, offsets, limits, strict=True)
        ]

    return answers


def _of_another(shift: int) -> Answers:
    """The count of the answer before, as far as this prompt is that long."""

    def answers(truth: list[Truth]) -> list[dict[str, Any]]:
        others = [truth[max(0, row - shift)].cached_tokens for row in range(len(truth))]
        return [
            {"cached_tokens": min(other, whole(one.prompt_tokens))}
            for one, other in zip(truth, others, strict=True)
        ]

    return answers


def _permuted(truth: list[Truth]) -> list[dict[str, Any]]:
    """The right sum, but the counts change hands between answers whose prompts can hold them."""
    order = np.random.default_rng(9).permutation(len(truth))
    counts = [one.cached_tokens for one in truth]
    for left, right in zip(order[::2], order[1::2], strict=False):
        if max(counts[left], counts[right]) < min(
            truth[left].prompt_tokens, truth[right].prompt_tokens
        ):
            counts[left], counts[right] = counts[right], counts[left]
    return [{"cached_tokens": count} for count in counts]


def _null_on_a_tenth(truth: list[Truth]) -> list[dict[str, Any]]:
    return [{"cached_tokens": None} if row % 10 == 0 else {} for row in range(len(truth))]


def _strings(truth: list[Truth]) -> list[dict[str, Any]]:
    doubt = "cached_tokens of type str is no number of tokens"
    return [{"cached_tokens": None, "usage_doubt": doubt} for _ in truth]


def _larger_than_prompt(truth: list[Truth]) -> list[dict[str, Any]]:
    return [
        {"cached_tokens": None, "usage_doubt": f"{2 * n} cached of {n} prompt tokens"}
        for n in (one.prompt_tokens for one in truth)
    ]


def _frozen_from(share: float) -> Page:
    """Stands still from that share of the run on: `seen` keeps the last reading before."""
    seen = [0.0, 0.0]

    def page(_: float, over: float, queries: float, hits: float) -> tuple[float, float]:
        if over <= share:
            seen[:] = [queries, hits]
        return seen[0], seen[1]

    return page


def lies() -> list[Lie]:
    """Made anew for every run: some remember what they showed."""
    return [
        Lie("none: an honest server"),
        Lie("constant share of each prompt", cached(lambda one: whole(0.5 * one.prompt_tokens))),
        Lie("constant share, parts of blocks", cached(lambda one: int(0.5 * one.prompt_tokens))),
        Lie("up to 2 blocks more or less", _noise(2)),
        Lie("7 tokens more", cached(lambda one: one.cached_tokens + 7)),
        Lie("scaled down by half", cached(lambda one: whole(0.5 * one.cached_tokens))),
        Lie(
            "scaled up by half",
            cached(lambda one: whole(min(1.5 * one.cached_tokens, one.prompt_tokens))),
        ),
        Lie("null on 10% of answers", _null_on_a_tenth),
        Lie("strings", _strings),
        Lie("larger than the prompt", _larger_than_prompt),
        Lie("counters frozen", page=_frozen_from(0.0)),
        Lie("counters frozen from the middle", page=_frozen_from(0.5)),
        Lie("counters of half of the tokens", page=lambda s, o, q, h: (0.5 * q, 0.5 * h)),
        Lie("counters of another client too", page=lambda s, o, q, h: (q + 150 * s, h + 90 * s)),
        Lie("hits shown at the end alone", page=lambda s, o, q, h: (q, h if o >= 0.95 else 0.0)),
        Lie("counters restarted", page=lambda s, o, q, h: (q, h) if o < 0.4 else (q / 2, h / 2)),
        Lie("the answer before's count", _of_another(1), unlisted=True),
        Lie("capped at 64", cached(lambda one: min(64, one.cached_tokens)), unlisted=True),
        Lie("permuted between answers", _permuted, unlisted=True),
        Lie(
            "answers and counters scaled down together",
            cached(lambda one: whole(0.7 * one.cached_tokens)),
            lambda s, o, q, h: (q, 0.66 * h),
            unlisted=True,
        ),
        Lie(
            "counters swap 20% of their hits for look-ups",
            page=lambda s, o, q, h: (q, 0.8 * h),
            unlisted=True,
        ),
    ]


def make_run(
    at: Path, truth: list[Truth], lie: Lie, tokenizer: str, witnesses: str
) -> dict[str, Any]:
    """The run folder `at` that this server would leave behind; returns run.json."""
    changes = lie.answers(truth) if lie.answers else [{} for _ in truth]
    if witnesses == "no usage":
        changes = [{"cached_tokens": None} for _ in truth]
    work = at.with_name(f"{at.name}-work")
    (work / "journals").mkdir(parents=True)
    with JournalWriter(work / "journals" / "worker-0.journal") as writer:
        for one, change in zip(truth, changes, strict=True):
            writer.append(_record(one, change))
    return finish_run(work, at, _context(truth, lie, tokenizer, witnesses != "no counters"))


def _record(one: Truth, change: dict[str, Any]) -> Record:
    said: dict[str, Any] = {"prompt_tokens": one.prompt_tokens, "cached_tokens": one.cached_tokens}
    return Record(
        session=one.session,
        turn=one.turn,
        name="chat",
        worker=0,
        outcome="ok",
        intended_s=one.sent_s,
        sent_s=one.sent_s,
        first_token_s=one.completed_s - 0.5,
        last_token_s=one.completed_s,
        completed_s=one.completed_s,
        status=200,
        finish_reason="length",
        output_tokens=len(one.reply),
        messages=one.messages,
        reply=" ".join(one.reply),
        **(said | change),
    )


def _context(truth: list[Truth], lie: Lie, tokenizer: str, counters: bool) -> RunContext:
    end_s = max(one.completed_s for one in truth) + 1.0

    def page(at_s: float) -> PrefixCounters:
        done = [one for one in truth if one.at_s <= at_s]
        queries = float(sum(one.prompt_tokens for one in done))
        hits = float(sum(one.cached_tokens for one in done))
        if lie.page:
            queries, hits = lie.page(max(0.0, at_s), at_s / end_s, queries, hits)
        return PrefixCounters("vllm", 7000 + queries, 3000 + hits)

    times = np.arange(0.0, end_s - 1.0, 2.0)
    before = page(-1.0)
    samples = [CounterSample(float(at), float(at) + 0.01, page(float(at))) for at in times]
    return RunContext(
        profile={"name": "lies"},
        url="http://127.0.0.1:8000/v1",
        model="m",
        seed=1,
        started_unix_s=1.75e9,
        duration_s=end_s,
        processes=1,
        loop="open",
        kind="conversation",
        scheduled=len(truth),
        tokenizer=tokenizer,
        block_size=BLOCK,
        capacity_blocks=BLOCKS,
        prefix_caching=True,
        counters_before=before if counters else None,
        counter_samples=samples if counters else [],
        counters_after=page(end_s) if counters else None,
    )


def word_tokenizer(folder: Path) -> str:
    """A tokenizer folder of one token a word."""
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token=WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    return str(folder)


@lru_cache(4)
def production(scratch: Path, tokenizer: str) -> dict[str, Any]:
    """The forecast from the log of another, longer day of the world."""
    day = world(1, sessions=90)
    make_run(scratch / "day", day, Lie("none"), tokenizer, "all three")
    log = [scratch / "day" / "sent.jsonl.gz"]
    found = read_log(log, format="openai", tokenizer=load_tokenizer(tokenizer), block_size=BLOCK)
    horizon_s = max(one.sent_s for one in world(2))
    return forecast(found.trace, 1.0, BLOCKS, horizon_s=horizon_s).to_dict()


def judged(scratch: Path, lie: Lie, tokenizer: str, witnesses: str, seed: int = 2) -> Verdict:
    """The gate's verdict on one run of this server."""
    at = scratch / f"{lie.name}-{witnesses}-{seed}".replace(" ", "_").replace("%", "")
    make_run(at, world(seed), lie, tokenizer, witnesses)
    return decide_folder(at, production(scratch, tokenizer))


def table(scratch: Path, tokenizer: str) -> str:
    """Liars x verdicts, as docs/ci.md shows it."""
    lines = [f"| what is not true | {' | '.join(WITNESSES)} |", "|---|---|---|---|"]
    for number, lie in enumerate(lies()):
        cells = [
            _cell(judged(scratch, lies()[number], tokenizer, heard))
            if lie.applies(heard) or not number
            else "–"
            for heard in WITNESSES
        ]
        star = " *" if lie.unlisted else ""
        lines.append(f"| {lie.name}{star} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Verdict) -> str:
    codes = dict.fromkeys(f"`{reason.code}`" for reason in found.reasons)
    return " ".join([found.verdict, *codes])


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True)
    print(table(place, word_tokenizer(place / "tokenizer")))
