"""The prediction of a run, with a tokenizer of one token a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_builders import answered, context, counters, journal
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loadkit.runs.folder import finish_run
from loadkit.runs.record import Record

WORDS = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
IDS = {word: number for number, word in enumerate(WORDS)}
FIRST = [{"role": "user", "content": "a b c d e f g h"}]
SECOND = [
    *FIRST,
    {"role": "assistant", "content": "i j k l"},
    {"role": "user", "content": "m n o"},
]
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = Tokenizer(models.WordLevel(IDS, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    return str(folder)


def two_turns(ids: list[int] | None) -> list[Record]:
    """8 prompt tokens, a reply of 4 words, then a prompt of 15; blocks of 4."""
    shared: dict[str, Any] = {"reply": "i j k l", "finish_reason": "stop", "reply_token_ids": ids}
    return [
        answered("s", 0, 0.0, messages=FIRST, prompt_tokens=8, cached_tokens=0, **shared),
        answered("s", 1, 1.0, messages=SECOND, prompt_tokens=15, cached_tokens=8, **shared),
    ]


def test_a_reply_that_tokenises_otherwise_is_named_and_everything_agrees(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    # generated "i j k k" + end token: the 4th block of the second prompt holds other ids
    journal(work, 0, two_turns([IDS["i"], IDS["j"], IDS["k"], IDS["k"], 25]))
    known = context(
        scheduled=2,
        tokenizer=tokenizer,
        block_size=4,
        capacity_blocks=100,
        counters_before=counters(0, 0),
        counters_after=counters(8, 23),
    )
    run = finish_run(work, tmp_path / "run", known)
    found = run["reconciliation"]
    assert found["prediction"] == {"cached_tokens": 8, "prompt_tokens": 23}
    assert found["prediction_from_text_tokens"] == 12
    assert found["retokenised_tokens"] == 4
    assert found["agrees"] is True
    assert run["split"]["source"] == "attributed"
    assert run["split"]["continuation"] == 8
    assert (run["append_only"]["turn_pairs"], run["append_only"]["kept"]) == (1, 1)
    assert run["diversity"]["distinct_prompts"] == 2
    assert run["tokenizer"]["name"] == tokenizer
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "run.json",
        "requests.parquet",
        "server_metrics.parquet",
        "sent.jsonl.gz",
        "histograms.json",
    }


def test_without_ids_the_text_alone_predicts_and_the_gap_stays_unexplained(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    journal(work, 0, two_turns(None))
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    found = finish_run(work, tmp_path / "run", known)["reconciliation"]
    assert found["retokenised_tokens"] is None
    assert found["usage_vs_prediction"]["unexplained_cached_tokens"] == -4
    assert found["agrees"] is False


def test_a_small_cache_makes_capacity_misses(work: Path, tmp_path: Path, tokenizer: str) -> None:
    ids = [IDS[word] for word in "ijkl"] + [25]
    journal(work, 0, two_turns(ids))
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    split = finish_run(work, tmp_path / "run", known)["split"]
    # 12 tokens could hit, the server reports 8: 4 were seen before and are gone
    assert (split["hit"], split["miss_capacity"], split["miss_compulsory"]) == (8, 4, 11)


def test_another_tokenizer_than_the_servers_makes_no_prediction(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    journal(work, 0, two_turns(None))
    known = context(
        scheduled=2, tokenizer=tokenizer, block_size=4, server_tokenizer_fingerprint="0" * 16
    )
    run = finish_run(work, tmp_path / "run", known)
    assert run["reconciliation"]["prediction"]["cached_tokens"] is None
    assert run["notes"] == ["no prediction: the server has another tokenizer than this one"]
    assert (run["curve"], run["append_only"], run["diversity"]) == ([], None, None)


def test_a_running_request_holds_its_blocks_in_a_tight_cache(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    # Three blocks of 4. A long request holds two; of the others only one fits at a time.
    def sent(name: str, at_s: float, text: str, **fields: Any) -> Record:
        messages = [{"role": "user", "content": text}]
        shared = {"reply": "", "reply_token_ids": [25], "prompt_tokens": len(text.split())}
        return answered(name, 0, at_s, messages=messages, **(shared | fields))

    journal(
        work,
        0,
        [
            sent("long", 0.0, "a b c d e f g h", completed_s=10.0),
            sent("first", 1.0, "i j k l m"),
            sent("other", 2.0, "n o p q r"),
            sent("again", 3.0, "i j k l m"),
        ],
    )
    known = context(scheduled=4, tokenizer=tokenizer, block_size=4, capacity_blocks=3)
    found = finish_run(work, tmp_path / "run", known)["reconciliation"]
    assert found["prediction"]["cached_tokens"] == 4, "one after another the first block is there"
    assert found["prediction_overlap_tokens"] == 0, "two are held, the other prompt took the rest"
