"""The plan of a run: counted by whoever can, refused where it is not fresh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import make_tokenizer
from traffic_profiles import CONVERSATION, CORPUS, constant, profile_of

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import load_tokenizer
from loadkit.planning import plan_for_run
from loadkit.traffic.build import build_plan


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(str(folder))
    return str(folder)


def test_lengths_in_tokens_are_counted_with_the_named_tokenizer(tokenizer_folder: str) -> None:
    traffic = CORPUS | {"message_sentences": None, "prompt_tokens": constant(70), "requests": 3}
    plan = plan_for_run(profile_of(traffic), tokenizer=tokenizer_folder)
    served = load_tokenizer(tokenizer_folder)
    lengths = [len(served.encode_chat(session.turns[0].messages)) for session in plan.sessions]
    assert lengths == [70, 70, 70]


def test_a_plan_that_is_not_fresh_is_refused_before_anything_is_sent(
    tokenizer_folder: str, tmp_path: Path
) -> None:
    same = "the prefix cache keeps keys and values of this very beginning, whatever follows: "
    rows = [{"messages": [{"role": "user", "content": same + str(n)}]} for n in range(3)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    profile = profile_of({"kind": "corpus", "corpus": str(path), "requests": 3})
    with pytest.raises(InputError, match="prompt tokens would hit by accident"):
        plan_for_run(profile, tokenizer=tokenizer_folder)
    assert plan_for_run(profile, tokenizer=None).num_requests == 3


def test_without_tokenizer_and_tokens_nobody_is_asked() -> None:
    profile = profile_of(CORPUS | {"requests": 3})
    nowhere = "http://127.0.0.1:9"
    assert plan_for_run(profile, tokenizer=None, url=nowhere) == build_plan(profile)


def test_the_plan_says_what_was_found_and_how_far_it_was_looked_at(
    tokenizer_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = profile_of(CONVERSATION | {"sessions": 2})
    whole = plan_for_run(profile, tokenizer=tokenizer_folder).freshness
    assert whole is not None
    assert not whole["openings_only"]
    assert whole["continuation"] > 0
    monkeypatch.setattr("loadkit.planning.for_run.MAX_WHOLE_CHARS", 10)
    openings = plan_for_run(profile, tokenizer=tokenizer_folder).freshness
    assert openings is not None
    assert (openings["openings_only"], openings["continuation"]) == (True, 0)
    assert openings["requests"] < whole["requests"]
    assert plan_for_run(profile, tokenizer=None).freshness is None
