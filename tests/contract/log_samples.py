"""The same few requests as every log format can say them, with the answer worked out by hand.

Blocks have 4 tokens. In text, block k is four times the k-th letter, and the tokenizer makes one
token of every letter; its chat template writes the contents and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadkit.core.tokenizer import Tokenizer

BLOCK_SIZE = 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Row = dict[str, Any]


# Whether a prompt has a partial last block, and whether ids (in formats of ids) stand for it too.
TAILS = ("covered", "not covered", "none")
TAIL_BLOCK = 9  # the letter of the tail


@dataclass(frozen=True)
class Sample:
    """One request: a chain of full blocks and a partial tail of one token (see TAILS)."""

    blocks: Sequence[int]
    session: str
    at_s: float
    tail: str = "not covered"

    @property
    def length(self) -> int:
        return BLOCK_SIZE * len(self.blocks) + (self.tail != "none")

    @property
    def ids(self) -> list[int]:
        """Of the blocks, not chained."""
        return [*self.blocks, *[TAIL_BLOCK] * (self.tail == "covered")]


SAMPLES = (
    Sample([1, 2], "a", 0.0),
    Sample([1, 3], "b", 1.0),
    Sample([1, 2, 4], "a", 2.5),
    Sample([1, 3], "c", 4.0),
)


@dataclass(frozen=True)
class Answer:
    """Prompt lengths and hit tokens by cause, in an infinite cache."""

    prompt_tokens: tuple[int, ...]
    continuation: int = 0
    shared: int = 0
    replay_same_session: int = 0
    replay_cross_session: int = 0


# Prompts of 9, 9, 13 and 9 tokens: 1 shared block, 2 of an earlier turn, a replay of 2 blocks.
NAMED_SESSIONS = Answer((9, 9, 13, 9), continuation=8, shared=4, replay_cross_session=8)
# Without session names the replay joins the session of the prompt that it repeats.
INFERRED_SESSIONS = Answer((9, 9, 13, 9), continuation=8, shared=4, replay_same_session=8)
# 8 tokens, a reply of 4, 4 more: 16, of which 12 are the session's own. Then 8, the first 4 shared.
DIALOGUES = Answer((8, 16, 8), continuation=12, shared=4)
# 8 tokens of context, one between, 4 of question: one shared block, then two.
CONTEXTS = Answer((13, 13, 13), shared=4 + 8)
# As the dialogues, but the reply's block is not known to be cached, and ids mean nothing elsewhere.
LOCAL_IDS = Answer((8, 8, 16), continuation=8)


def chained(blocks: Sequence[int]) -> list[int]:
    """Ids that stand for whole prefixes: the digits of the blocks so far."""
    return [int("".join(map(str, blocks[: end + 1]))) for end in range(len(blocks))]


def text_of(sample: Sample) -> str:
    text = "".join(LETTERS[block] * BLOCK_SIZE for block in sample.blocks)
    return text + LETTERS[TAIL_BLOCK] * (sample.tail != "none")


def mooncake_row(sample: Sample) -> Row:
    return {
        "timestamp": sample.at_s * 1000,
        "input_length": sample.length,
        "hash_ids": chained(sample.ids),
        "session_id": sample.session,
        "block_size": BLOCK_SIZE,
    }


def bailian_row(sample: Sample) -> Row:
    chat = [one.at_s for one in SAMPLES].index(sample.at_s)
    return {
        "chat_id": chat,
        "parent_chat_id": 0 if chat == 2 else -1,
        "timestamp": sample.at_s,
        "input_length": sample.length,
        "output_length": 5,
        "type": "text",
        "turn": 1,
        "hash_ids": sample.ids,
    }


def hashed_row(sample: Sample) -> Row:
    return {
        "timestamp_s": sample.at_s,
        "prompt_tokens": sample.length,
        "hashes": chained(sample.ids),
        "session": sample.session,
        "block_size": BLOCK_SIZE,
    }


def openai_row(sample: Sample) -> Row:
    return {
        "timestamp": sample.at_s,
        "prompt": [LETTERS.index(letter) for letter in text_of(sample)],
        "session_id": sample.session,
    }


def anthropic_row(sample: Sample) -> Row:
    text = text_of(sample)
    return {
        "timestamp": sample.at_s,
        "session_id": sample.session,
        "max_tokens": 100,
        "system": [{"type": "text", "text": text[:4], "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": text[4:]}]}],
    }


def responses_row(sample: Sample) -> Row:
    text = text_of(sample)
    parts = [{"type": "input_text", "text": text[4:]}]
    return {
        "timestamp": sample.at_s,
        "session_id": sample.session,
        "instructions": text[:4],
        "input": [{"type": "message", "role": "user", "content": parts}],
    }


def gemini_row(sample: Sample) -> Row:
    text = text_of(sample)
    return {
        "timestamp": sample.at_s,
        "session_id": sample.session,
        "systemInstruction": {"parts": [{"text": text[:4]}]},
        "contents": [{"role": "user", "parts": [{"text": text[4:]}]}],
        "generationConfig": {"maxOutputTokens": 100},
    }


def openai_batch_row(sample: Sample) -> Row:
    messages = [{"role": "user", "content": text_of(sample)}]
    return {
        "custom_id": f"request-{sample.at_s}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": messages},
    }


def otel_row(sample: Sample) -> Row:
    parts = [{"type": "text", "content": text_of(sample)}]
    return {
        "timestamp": sample.at_s,
        "gen_ai.input.messages": [{"role": "user", "parts": parts}],
        "gen_ai.conversation.id": sample.session,
        "gen_ai.usage.input_tokens": len(text_of(sample)),
    }


def lmcache_row(sample: Sample) -> Row:
    return {
        "timestamp": int(sample.at_s * 1e6),
        "input": text_of(sample),
        "output": "",
        "session_id": sample.session,
    }


TALKS = [
    [("human", "bbbbcccc"), ("gpt", "dddd"), ("human", "eeee"), ("gpt", "ffff")],
    [("human", "bbbbdddd"), ("gpt", "cccc")],
]


def sharegpt_rows() -> list[Row]:
    return [
        {"id": str(at), "conversations": [{"from": who, "value": text} for who, text in talk]}
        for at, talk in enumerate(TALKS)
    ]


def tau_bench_rows() -> list[Row]:
    roles = {"human": "user", "gpt": "assistant"}
    return [
        {
            "task_id": at,
            "trial": 0,
            "traj": [{"role": roles[who], "content": text} for who, text in talk],
        }
        for at, talk in enumerate(TALKS)
    ]


def chats_rows() -> list[Row]:
    roles = {"human": "user", "gpt": "assistant"}
    return [
        {
            "conversation_id": str(at),
            "conversation": [{"role": roles[who], "content": text} for who, text in talk],
        }
        for at, talk in enumerate(TALKS)
    ]


def longbench_rows() -> list[Row]:
    asked = [("bbbbcccc", "eeee"), ("bbbbdddd", "eeee"), ("bbbbcccc", "ffff")]
    return [
        {"_id": f"q{at}", "context": context, "input": question}
        for at, (context, question) in enumerate(asked)
    ]


def weka_rows() -> list[Row]:
    def request(at_s: float, *ids: int) -> Row:
        return {"t": at_s, "in": BLOCK_SIZE * len(ids), "out": 4, "hash_ids": list(ids)}

    sessions = [[request(0, 1, 2), request(5, 1, 2, 3, 4)], [request(0, 1, 3)]]
    return [
        {"id": f"s{at}", "block_size": 4, "hash_id_scope": "local", "requests": requests}
        for at, requests in enumerate(sessions)
    ]


PER_REQUEST: dict[str, Callable[[Sample], Row]] = {
    "mooncake": mooncake_row,
    "bailian": bailian_row,
    "hashed": hashed_row,
    "openai": openai_row,
    "anthropic": anthropic_row,
    "responses": responses_row,
    "gemini": gemini_row,
    "openai-batch": openai_batch_row,
    "otel": otel_row,
    "lmcache": lmcache_row,
}
PER_SESSION: dict[str, Callable[[], list[Row]]] = {
    "sharegpt": sharegpt_rows,
    "tau-bench": tau_bench_rows,
    "chats": chats_rows,
    "longbench": longbench_rows,
    "weka": weka_rows,
}
ANSWERS = {
    **dict.fromkeys(PER_REQUEST, NAMED_SESSIONS),
    "openai-batch": INFERRED_SESSIONS,
    "sharegpt": DIALOGUES,
    "tau-bench": DIALOGUES,
    "chats": DIALOGUES,
    "longbench": CONTEXTS,
    "weka": LOCAL_IDS,
}


def rows_of(format: str, tail: str = "not covered") -> list[Row]:
    """The log's rows; formats of whole sessions have one text each, whatever the tail."""
    if format in PER_SESSION:
        return PER_SESSION[format]()
    return [PER_REQUEST[format](replace(sample, tail=tail)) for sample in SAMPLES]


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def make_letters() -> Tokenizer:
    """One token a letter, its place in the alphabet; anything else is the token after `z`."""
    from tokenizers import Regex
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: place for place, letter in enumerate(LETTERS + "?")}
    backend = Backend(WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = Split(Regex("."), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return Tokenizer(fast, "letters")
