"""The prediction of a run, with a tokenizer of one token a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_builders import answered, context, counters, journal
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loadkit.analysis import analyze
from loadkit.client.decoder import ToolCall
from loadkit.client.prometheus import PrefixCounters
from loadkit.core.blocks import packed_tokens
from loadkit.runs import serving
from loadkit.runs.folder import finish_run
from loadkit.runs.predicting import server_of
from loadkit.runs.record import Record
from loadkit.traces import read_trace

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


@pytest.mark.parametrize(
    ("known", "parts", "why"),
    [
        ({"capacity_blocks": 2}, (4, 0), None),
        ({"capacity_blocks": 1000}, (0, 4), "eviction at the cache's size does not explain it"),
        ({}, (0, 4), "the cache's size is not known, so neither is what was evicted"),
        ({"prefix_caching": False}, (0, 4), "the server's prefix cache is off"),
    ],
)
def test_what_eviction_does_not_explain_is_a_miss_unexplained(
    known: dict[str, Any],
    parts: tuple[int, int],
    why: str | None,
    work: Path,
    tmp_path: Path,
    tokenizer: str,
) -> None:
    ids = [IDS[word] for word in "ijkl"] + [25]
    journal(work, 0, two_turns(ids))
    known = {"scheduled": 2, "tokenizer": tokenizer, "block_size": 4} | known
    run = finish_run(work, tmp_path / "run", context(**known))
    split = run["split"]
    # 12 tokens could hit, the server reports 8.
    assert (split["hit"], split["miss_compulsory"]) == (8, 11)
    assert (split["miss_capacity"], split["miss_unexplained"]) == parts
    told = f"4 prompt tokens (17.4%) could have hit and did not: {why}"
    assert (told in run["notes"]) == (why is not None)


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
    # Five blocks of 4. A long request holds three; of the others one fits at a time.
    def sent(name: str, at_s: float, text: str, **fields: Any) -> Record:
        messages = [{"role": "user", "content": text}]
        shared = {"reply": "", "reply_token_ids": [25], "prompt_tokens": len(text.split())}
        return answered(name, 0, at_s, messages=messages, **(shared | fields))

    ten_s: dict[str, Any] = {"completed_s": 10.0, "last_token_s": 10.0, "gaps_s": [0.1, 9.8]}
    ten_s["reply_token_ids"] = [24, 24, 25]
    journal(
        work,
        0,
        [
            sent("long", 0.0, "a b c d e f g h", **ten_s),
            sent("first", 1.0, "i j k l m"),
            sent("other", 2.0, "n o p q r"),
            sent("again", 3.0, "i j k l m"),
        ],
    )
    known = context(scheduled=4, tokenizer=tokenizer, block_size=4, capacity_blocks=5)
    found = finish_run(work, tmp_path / "run", known)["reconciliation"]
    assert found["prediction_infinite_tokens"] == 4
    assert found["prediction"]["cached_tokens"] == 0, (
        "three are held, the other prompt took the rest"
    )
    assert found["usage_vs_prediction"]["agrees"] is True
    assert (found["prediction_low_tokens"], found["prediction_high_tokens"]) == (0, 0)


def test_the_reference_server_is_known_by_its_causes_and_predicted_with_its_own_pool(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    """Two blocks of 4, both taken by the first prompt until 10 s. On vLLM the second finds them at
    once; the reference server lets it wait, for the first token of the first at 9 s. Both hit 4."""

    def sent(name: str, at_s: float, first_s: float, text: str, cached: int) -> Record:
        return answered(
            name, 0, at_s, messages=[{"role": "user", "content": text}], reply="",
            reply_token_ids=[24, 25], prompt_tokens=len(text.split()), cached_tokens=cached,
            first_token_s=first_s, last_token_s=10.0, completed_s=10.0, gaps_s=[10.0 - first_s],
        )  # fmt: skip

    twin = "a b c d e f g h"
    records = [sent("one", 0.0, 9.0, twin, 0), sent("two", 1.0, 9.5, twin, 4)]
    journal(work, 0, records)
    source = PrefixCounters(source="vllm", queries=0, hits=0, by_cause={"replay": 0.0})
    known = context(
        scheduled=2, tokenizer=tokenizer, block_size=4, capacity_blocks=2, counters_before=source
    )
    found = finish_run(work, tmp_path / "run", known)["reconciliation"]
    assert found["prediction"]["cached_tokens"] == 4
    assert found["usage_vs_prediction"]["agrees"] is True
    vllm = context(scheduled=2, tokenizer=tokenizer, block_size=4, capacity_blocks=2)
    assert server_of(known) == "reference"
    assert server_of(vllm) == "vllm"


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
    low, high = found["prediction_low_tokens"], found["prediction_high_tokens"]
    assert low <= found["prediction"]["cached_tokens"] <= high


GENERATED = [IDS[word] for word in "ijkl"] + [25]


def ids_of(text: str, before: str = "") -> bytes:
    """The server's token ids of a prompt; its template writes `before` in front of it."""
    return packed_tokens([IDS[word] for word in [*before, *text.split()]])


def with_ids(before: str = "") -> list[Record]:
    """`two_turns` of a server that tells its token ids: 12 of the second prompt's tokens are there
    in blocks of 4, whatever stands in front of both prompts."""
    turns = two_turns(GENERATED)
    for record, words in zip(
        turns, ("a b c d e f g h", "a b c d e f g h i j k l m n o"), strict=True
    ):
        record.prompt_token_ids = ids_of(words, before)
        record.prompt_tokens = len(words.split()) + len(before)
    turns[1].cached_tokens = (12 + len(before)) // 4 * 4
    return turns


@pytest.mark.parametrize("before", ["", "zz"])
def test_the_servers_own_token_ids_predict_without_any_tokenizer(
    work: Path, tmp_path: Path, before: str
) -> None:
    journal(work, 0, with_ids(before))
    run = finish_run(work, tmp_path / "run", context(scheduled=2, block_size=4))
    found = run["reconciliation"]
    num_tokens = 23 + 2 * len(before)
    assert found["prediction"] == {"cached_tokens": 12, "prompt_tokens": num_tokens}
    assert found["usage_vs_prediction"]["agrees"] is True
    assert (run["split"]["source"], run["split"]["continuation"]) == ("attributed", 12)
    assert run["prompt_ids"] == {"source": "server", "from_server": 2, "answers": 2}
    assert (run["tokenizer"], run["template"], run["notes"]) == (None, None, [])
    assert run["append_only"]["kept"] == 1
    log = tmp_path / "run" / "sent.jsonl.gz"
    trace = read_trace([log], format="openai", block_size=4)
    assert analyze(trace).infinite.continuation * num_tokens == pytest.approx(12)


def test_another_template_than_the_servers_is_named_and_its_own_ids_are_used(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    journal(work, 0, with_ids("zz"))
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    run = finish_run(work, tmp_path / "run", known)
    assert run["reconciliation"]["usage_vs_prediction"]["agrees"] is True
    assert run["reconciliation"]["retokenised_tokens"] is None
    assert run["prompt_ids"]["source"] == "server"
    first = {"session": "s", "turn": 0, "server_tokens": 10, "local_tokens": 8, "first_token": 0}
    assert run["template"] == {"compared": 2, "by": "token_ids", "different": 2, "first": first}
    (note,) = run["notes"]
    assert note == (
        "the server's prompt has 2 tokens more than this tokenizer's template gives (10 and 8):"
        " first difference at token 0. Its tokenizer or chat template is another one; the"
        " prediction is made of the server's own token ids, so it holds"
    )


def test_ids_that_only_some_answers_have_are_not_mixed_with_the_tokenizers(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    turns = with_ids()
    turns[1].prompt_token_ids = None
    journal(work, 0, turns)
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    run = finish_run(work, tmp_path / "with", known)
    assert run["reconciliation"]["usage_vs_prediction"]["agrees"] is True
    assert run["prompt_ids"] == {"source": "tokenizer", "from_server": 1, "answers": 2}
    assert "1 of 2 answers came with the server's token ids" in run["notes"][0]
    alone = finish_run(work, tmp_path / "without", context(scheduled=2, block_size=4))
    assert alone["prompt_ids"]["source"] is None
    assert alone["notes"] == [
        "no prediction: 1 of 2 answers came without the server's token ids of the prompt, so it"
        " needs the served tokenizer"
    ]


def test_prompt_ids_without_those_of_a_reply_need_the_served_tokenizer(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    turns = with_ids()
    turns[0].reply_token_ids = None
    journal(work, 0, turns)
    alone = finish_run(work, tmp_path / "without", context(scheduled=2, block_size=4))
    assert "1 of 2 answers came without the server's token ids of the reply" in alone["notes"][0]
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    assert finish_run(work, tmp_path / "with", known)["prompt_ids"]["source"] == "server"


def test_a_server_that_counts_otherwise_has_another_template(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    turns = two_turns(GENERATED)
    turns[0].prompt_tokens, turns[1].prompt_tokens = 20, 27
    journal(work, 0, turns)
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    run = finish_run(work, tmp_path / "run", known)
    first = {"session": "s", "turn": 0, "server_tokens": 20, "local_tokens": 8, "first_token": None}
    assert run["template"] == {"compared": 2, "by": "usage", "different": 2, "first": first}
    assert "12 tokens more than this tokenizer's template gives (20 and 8)" in run["notes"][0]
    assert "so it is wrong" in run["notes"][0]


def test_a_tokenizer_that_gives_the_servers_tokens_is_said_to(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    journal(work, 0, with_ids())
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4)
    run = finish_run(work, tmp_path / "run", known)
    assert run["template"] == {"compared": 2, "by": "token_ids", "different": 0, "first": None}
    assert (run["notes"], run["reconciliation"]["retokenised_tokens"]) == ([], 0)


def test_a_hybrids_places_are_predicted_and_what_they_cost_is_named(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    """Blocks of 2, states kept at the end of each prompt: the second of three with a new common
    beginning of 4 tokens misses. In blocks of 16 nothing could be said of such a server."""
    texts = ["a b c d e f g h", "a b c d i j k l", "a b c d m n o p"]
    records = [
        answered(
            text[-1],
            0,
            float(row),
            messages=[{"role": "user", "content": text}],
            prompt_tokens=8,
            cached_tokens=4 if row == 2 else 0,
            reply="q",
        )
        for row, text in enumerate(texts)
    ]
    journal(work, 0, records)
    known = context(
        scheduled=3,
        tokenizer=tokenizer,
        block_size=2,
        kept_blocks=(1,),
        counters_before=counters(0, 0),
        counters_after=counters(4, 24),
    )
    run = finish_run(work, tmp_path / "run", known)
    found = run["reconciliation"]
    assert found["prediction"] == {"cached_tokens": 4, "prompt_tokens": 24}
    assert found["agrees"] is True
    assert found["prediction_infinite_tokens"] == 8  # what any server may serve at most
    assert found["usage_gap"]["kept_places"] == -4
    assert (found["usage_gap"]["eviction"], found["usage_gap"]["unexplained"]) == (None, 0)
    assert run["endpoint"]["kept_blocks"] == [1]
    assert any("at a few places of a prompt only" in note for note in run["notes"])


def test_prompts_that_no_block_fits_into_are_named(
    work: Path, tmp_path: Path, tokenizer: str
) -> None:
    """vLLM issue 53749: hits are 0 whatever is sent, and nothing says why."""
    records = [answered("s", 0, 0.0, messages=FIRST), answered("s", 1, 1.0, messages=SECOND)]
    journal(work, 0, records)
    known = context(scheduled=2, tokenizer=tokenizer, block_size=528)
    run = finish_run(work, tmp_path / "run", known)
    assert run["notes"][-1] == (
        "no prompt reaches 529 tokens, the shortest that can hit in the server's blocks of 528 (the"
        " longest has 15): nothing that was sent can hit"
    )


CALLING = (
    "{% for m in messages %}{{ m.content }} {% for c in m.tool_calls or [] %}"
    "{{ c.function.name }} {{ c.function.arguments.at }} {% endfor %}{% endfor %}"
)


@pytest.mark.parametrize("ids", [None, GENERATED])
def test_a_reply_that_calls_tools_is_predicted_as_generated_or_as_the_template_writes_it(
    work: Path, tmp_path: Path, ids: list[int] | None
) -> None:
    """8 prompt tokens, the call "i j" between the words k and l, a result: blocks of 4."""
    words = Tokenizer(models.WordLevel(IDS, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=CALLING)
    fast.save_pretrained(tmp_path / "tokenizer")
    call = ToolCall("c1", "k", '{"at": "l"}')
    reply = {"role": "assistant", "content": "i j", "tool_calls": [call.as_sent()]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "m n o"}
    said: dict[str, Any] = {"reply": "i j", "tool_calls": [call], "reply_token_ids": ids}
    turns = [
        answered("s", 0, 0.0, messages=FIRST, prompt_tokens=8, **said),
        answered("s", 1, 1.0, messages=[*FIRST, reply, result], prompt_tokens=15, **said),
    ]
    turns[1].cached_tokens = 12
    journal(work, 0, turns)
    known = context(scheduled=2, tokenizer=str(tmp_path / "tokenizer"), block_size=4)
    run = finish_run(work, tmp_path / "run", known)
    assert run["reconciliation"]["prediction"] == {"cached_tokens": 12, "prompt_tokens": 23}
    assert run["append_only"]["kept"] == 1
    assert any("called tools" in note for note in run["notes"]) is (ids is None)


def test_a_run_too_long_for_other_orders_of_work_leaves_agreement_open(
    work: Path, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two users at once in three blocks: 8 tokens are expected, none hit."""
    monkeypatch.setattr(serving, "MAX_TOUCHES", 10)
    text = [{"role": "user", "content": "a b c d e f g h i"}]
    both = [
        answered("s", 0, 0.0, messages=text, prompt_tokens=9, reply_token_ids=[1, 2, 25]),
        answered("t", 0, 0.2, messages=text, prompt_tokens=9, reply_token_ids=[1, 2, 25]),
    ]
    journal(work, 0, both)
    known = context(scheduled=2, tokenizer=tokenizer, block_size=4, capacity_blocks=3)
    run = finish_run(work, tmp_path / "run", known)
    found = run["reconciliation"]
    assert found["prediction"]["cached_tokens"] == 8
    assert (found["prediction_low_tokens"], found["prediction_high_tokens"]) == (None, None)
    assert found["usage_vs_prediction"]["agrees"] is None
    assert any("too long to try other orders" in note for note in run["notes"])
