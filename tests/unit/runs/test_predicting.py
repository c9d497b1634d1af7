"""The prediction of a run, with a tokenizer of one token a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_builders import answered, context, counters, journal
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loadkit.client.prometheus import PrefixCounters
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


def test_several_engines_leave_a_lower_rate_open_but_not_a_higher_one(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    """12 tokens could hit if one engine got both turns; 8 did, nobody knows where."""
    journal(work, 0, two_turns([IDS[word] for word in "ijkl"] + [25]))
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4, capacity_blocks=2, engines=2)
    run = finish_run(work, tmp_path / "run", known)
    found = run["reconciliation"]
    assert found["prediction"]["cached_tokens"] == 12
    assert found["prediction_capacity_blocks"] is None, "not one cache of that size"
    assert found["usage_vs_prediction"]["agrees"] is None
    assert run["endpoint"]["engines"] == 2
    assert any("2 engines with a cache each" in note for note in run["notes"])


def test_more_than_several_engines_could_reuse_is_still_disagreement(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    turns = two_turns([IDS["i"], IDS["k"], IDS["k"], IDS["k"], 25])
    turns[1].cached_tokens = 12
    journal(work, 0, turns)
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4, engines=2)
    found = finish_run(work, tmp_path / "run", known)["reconciliation"]
    assert found["prediction"]["cached_tokens"] == 8
    assert found["usage_vs_prediction"]["agrees"] is False


def test_a_cache_that_is_off_is_predicted_to_reuse_nothing(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    turns = two_turns([IDS[word] for word in "ijkl"] + [25])
    turns[1].cached_tokens = 0
    journal(work, 0, turns)
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4, prefix_caching=False)
    run = finish_run(work, tmp_path / "run", known)
    assert run["reconciliation"]["prediction"]["cached_tokens"] == 0
    assert run["reconciliation"]["usage_vs_prediction"]["agrees"] is True
    assert "prefix cache is off" in run["notes"][0]


def two_users(cached: list[int]) -> list[Record]:
    """Two conversations in turns at one llama.cpp slot: prompts of 8 and 15 tokens each."""
    other = [{"role": "user", "content": "z y x w v u t s"}]
    more = [*other, {"role": "assistant", "content": "r q p o"}, SECOND[2]]
    sent = [("s", 0, FIRST, 8), ("t", 0, other, 8), ("s", 1, SECOND, 15), ("t", 1, more, 15)]
    replies = {"s": "i j k l", "t": "r q p o"}
    return [
        answered(
            name,
            turn,
            float(row),
            messages=messages,
            prompt_tokens=tokens,
            cached_tokens=hits,
            reply=replies[name] if turn == 0 else "a",
            finish_reason="stop",
        )
        for row, ((name, turn, messages, tokens), hits) in enumerate(zip(sent, cached, strict=True))
    ]


@pytest.mark.parametrize(
    ("cached", "setup"),
    [([0, 0, 0, 0], "no prompt cache in host memory"), ([0, 0, 12, 12], "a prompt cache in host")],
)
def test_the_answers_show_whether_llama_cpp_keeps_more_than_its_slots(
    work: Path, tmp_path: Path, tokenizer: str, cached: list[int], setup: str
) -> None:
    journal(work, 0, two_users(cached))
    source = PrefixCounters(source="llamacpp", queries=0, hits=0)
    known = context(scheduled=4, tokenizer=tokenizer, num_slots=1, counters_before=source)
    run = finish_run(work, tmp_path / "run", known)
    assert run["reconciliation"]["prediction"]["cached_tokens"] == sum(cached)
    assert run["reconciliation"]["usage_vs_prediction"]["agrees"] is True
    assert f"llama.cpp with 1 slot and {setup}" in run["notes"][0]


@pytest.mark.parametrize(("took_s", "agrees"), [(0.3, False), (2.5, None)])
def test_overlapping_requests_leave_open_who_got_which_slot(
    work: Path, tmp_path: Path, tokenizer: str, took_s: float, agrees: bool | None
) -> None:
    """7 tokens are no setup's hits. Without overlap that is disagreement."""
    turns = two_users([0, 0, 7, 0])
    for record in turns:
        assert record.sent_s is not None
        record.completed_s = record.sent_s + took_s
    journal(work, 0, turns)
    source = PrefixCounters(source="llamacpp", queries=0, hits=0)
    known = context(scheduled=4, tokenizer=tokenizer, num_slots=1, counters_before=source)
    found = finish_run(work, tmp_path / "run", known)["reconciliation"]
    assert found["usage_vs_prediction"]["agrees"] is agrees
