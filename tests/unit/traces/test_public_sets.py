"""Public data sets: rows as the sets have them are read through `datasets` as the requests they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import InputError
from loadkit.corpora.public import PUBLIC_SETS, licence_of, licences_in
from loadkit.traces import FORMATS
from loadkit.traffic.log import LoggedPrompt, read_prompts

Row = dict[str, Any]

# Keys of each set's rows as its page shows them; values of our own.
WILDCHAT = {
    "conversation_hash": "ab12",
    "model": "m",
    "timestamp": "2024-01-01T00:00:00Z",
    "conversation": [
        {"role": "user", "content": "hi", "country": "X", "hashed_ip": "f00", "turn_identifier": 1},
        {"role": "assistant", "content": "hello", "country": None, "turn_identifier": 1},
        {"role": "user", "content": "why?", "country": "X", "hashed_ip": "f00"},
        {"role": "assistant", "content": "so", "country": None},
    ],
    "turn": 2,
    "language": "English",
    "toxic": False,
}
LMSYS = {
    "conversation_id": "c1",
    "model": "m",
    "conversation": [
        {"content": "hi", "role": "user"},
        {"content": "hello", "role": "assistant"},
        {"content": "why?", "role": "user"},
        {"content": "so", "role": "assistant"},
    ],
    "turn": 2,
    "language": "English",
    "openai_moderation": [{"flagged": False}],
    "redacted": False,
}
SHAREGPT = {
    "id": "s1",
    "conversations": [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello"},
        {"from": "human", "value": "why?"},
        {"from": "gpt", "value": "so"},
    ],
}
SWE_AGENT = {
    "instance_id": "a__b-1",
    "model_name": "m",
    "target": True,
    "trajectory": [
        {"role": "system", "system_prompt": "be brief", "text": None, "mask": False},
        {"role": "user", "system_prompt": None, "text": "fix it", "mask": False},
        {"role": "ai", "system_prompt": None, "text": "ls", "mask": True},
        {"role": "user", "system_prompt": None, "text": "a.py", "mask": False},
        {"role": "ai", "system_prompt": None, "text": "submit", "mask": True},
    ],
    "exit_status": "submitted",
}
LONGBENCH = {"_id": "q1", "context": "A text.", "input": "Who?", "answers": ["x"], "length": 2}
LONGBENCH_2 = {
    "_id": "q2",
    "context": "A text.",
    "question": "Who?",
    "choice_A": "a",
    "choice_B": "b",
    "choice_C": "c",
    "choice_D": "d",
    "answer": "A",
}
TALK = [["hi"], ["hi", "hello", "why?"]]
TASK = [["be brief", "fix it"], ["be brief", "fix it", "ls", "a.py"]]


def read_as_dataset(folder: Path, row: Row) -> list[LoggedPrompt]:
    """Through `datasets`, from a folder that holds what the hub would have."""
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return read_prompts(f"hf:{folder}")


@pytest.mark.parametrize(
    ("row", "contents"),
    [
        (WILDCHAT, TALK),
        (LMSYS, TALK),
        (SHAREGPT, TALK),
        (SWE_AGENT, TASK),
        (LONGBENCH, [["A text.\n\nWho?"]]),
        (LONGBENCH_2, [["A text.\n\nWho?\n(A) a\n(B) b\n(C) c\n(D) d"]]),
    ],
    ids=["wildchat", "lmsys", "sharegpt", "swe-agent", "longbench", "longbench-2"],
)
def test_a_row_is_the_requests_that_led_to_it(
    tmp_path: Path, row: Row, contents: list[list[str]]
) -> None:
    pytest.importorskip("datasets")
    prompts = read_as_dataset(tmp_path, row)
    assert [[message["content"] for message in one.messages] for one in prompts] == contents
    assert len({one.session for one in prompts}) == 1


def test_nothing_about_a_person_but_the_words_is_sent_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(WILDCHAT) + "\n", "utf-8")
    for prompt in read_prompts(path):
        assert all(set(message) == {"role", "content"} for message in prompt.messages)


def test_tools_are_objects_or_the_json_of_objects(tmp_path: Path) -> None:
    path, tool = tmp_path / "log.jsonl", {"type": "function", "function": {"name": "ls"}}
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [
        {"trajectory": talk, "tools": [tool]},
        {"trajectory": talk, "tools": [json.dumps(tool)]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert [prompt.tools for prompt in read_prompts(path)] == [(tool,), (tool,)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"trajectory": [{"content": "a"}]}, "a message has no role"),
        ({"trajectory": [], "tools": ["{"]}, "a tool is no JSON"),
        ({"trajectory": [], "tools": [3]}, "a tool is no object"),
        ({"context": "a", "question": 3}, "question"),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_line(
    tmp_path: Path, row: Row, says: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(InputError, match=rf"log\.jsonl:1: .*{says}"):
        read_prompts(path)


def test_every_public_set_has_a_licence_and_a_format_that_is_read() -> None:
    assert len({each.hub for each in PUBLIC_SETS}) == len(PUBLIC_SETS) >= 5
    for each in PUBLIC_SETS:
        assert each.format in FORMATS
        assert each.licence in licence_of(f"{each.name}:train")


def test_licences_are_found_wherever_a_profile_names_a_set() -> None:
    section = {"parts": [{"traffic": {"corpus": "hf:lmsys/lmsys-chat-1m:train"}}], "log": "a.jsonl"}
    assert licences_in(section) == [licence_of("hf:lmsys/lmsys-chat-1m")]
    assert "License Agreement" in licences_in(section)[0]
    assert licences_in({"log": "hf:some/thing"}) == [
        "hf:some/thing: licence not known to loadkit; read its page on the hub before you use it."
    ]
