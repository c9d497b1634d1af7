"""The append-only audit on real sessions: as they are, and with one break planted in each.

Needs the public traces; a character is a token, so that no tokenizer is needed.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.analysis import analyze
from loadkit.traces import TokenRequest, read_trace, token_trace

DATA = Path(os.environ.get("LOADKIT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
Message = dict[str, Any]
Plant = Callable[[list[Message], random.Random], list[Message]]

TOOLS = [{"name": name, "description": "does it"} for name in ("search", "book", "cancel")]


def data_file(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in LOADKIT_DATA")
    return DATA / name


def dialogues(count: int) -> list[list[Message]]:
    with gzip.open(data_file("tau_bench_airline_gpt4o.json.gz"), "rt") as file:
        return [row["traj"] for row in json.load(file)[:count]]


def tokens_of(messages: list[Message], tools: Any) -> list[int]:
    parts = [messages[0], tools, *messages[1:]]
    return [ord(char) for part in parts for char in json.dumps(part) + "\n"]


def requests(dialogue: list[Message], session: int, plant: Plant, tools: Any) -> list[TokenRequest]:
    """The request before each assistant message, with the break planted anew in every one."""
    draw, out = random.Random(session), []
    for end, message in enumerate(dialogue):
        if message["role"] == "assistant":
            sent = plant([dict(part) for part in dialogue[:end]], draw)
            given = tools(draw)
            prompt = tokens_of(sent, given)
            out.append(TokenRequest(prompt, session=session, text=sent, tools=given))
    return out


def no_tools(draw: random.Random) -> None:
    return None


def shuffled_tools(draw: random.Random) -> list[Any]:
    return draw.sample(TOOLS, len(TOOLS))


def as_it_is(sent: list[Message], draw: random.Random) -> list[Message]:
    return sent


def in_system(text: Callable[[random.Random], str]) -> Plant:
    def plant(sent: list[Message], draw: random.Random) -> list[Message]:
        return [{**sent[0], "content": text(draw) + sent[0]["content"]}, *sent[1:]]

    return plant


def clock(draw: random.Random) -> str:
    return f"Now {draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}. "


def request_id(draw: random.Random) -> str:
    return f"[id {draw.getrandbits(64):016x}-a1] "


def window(sent: list[Message], draw: random.Random) -> list[Message]:
    return [sent[0], *sent[1:][-4:]]


def cleared(sent: list[Message], draw: random.Random) -> list[Message]:
    for message in sent[:-2]:
        if message["role"] == "tool":
            message["content"] = "[cleared]"
    return sent


def injected(sent: list[Message], draw: random.Random) -> list[Message]:
    if sent[-1]["role"] == "user":
        sent[-1]["content"] = f"<doc>{draw.random()}</doc>\n{sent[-1]['content']}"
    return sent


PLANTED: list[tuple[str, Plant, Callable[[random.Random], Any]]] = [
    ("timestamp_in_system_prompt", in_system(clock), no_tools),
    ("id_in_system_prompt", in_system(request_id), no_tools),
    ("messages_dropped", window, no_tools),
    ("tool_result_edited", cleared, no_tools),
    ("injected_text_dropped", injected, no_tools),
    ("tools_reordered", as_it_is, shuffled_tools),
]


def test_tau_bench_dialogues_are_append_only() -> None:
    sent = [
        request
        for session, dialogue in enumerate(dialogues(40))
        for request in requests(dialogue, session, as_it_is, no_tools)
    ]
    found = analyze(token_trace(sent, 16), [None]).append_only
    assert found.turn_pairs > 300
    assert (found.kept, found.tokens_lost, found.causes) == (found.turn_pairs, 0, ())


@pytest.mark.parametrize("named", [True, False], ids=["sessions named", "no session ids"])
@pytest.mark.parametrize(("cause", "plant", "tools"), PLANTED, ids=[row[0] for row in PLANTED])
def test_a_break_planted_in_real_dialogues_is_found_and_nothing_else(
    cause: str, plant: Plant, tools: Callable[[random.Random], Any], named: bool
) -> None:
    sent = [
        request
        for session, dialogue in enumerate(dialogues(12))
        for request in requests(dialogue, session, plant, tools)
    ]
    if not named:
        for request in sent:
            request.session = None
    found = analyze(token_trace(sent, 16), [None]).append_only
    assert [item.cause for item in found.causes] == [cause]
    assert found.causes[0].pairs >= 10
    assert found.tokens_lost > 0


def test_weka_sessions_are_append_only_in_the_published_share_of_turn_pairs() -> None:
    trace = read_trace([data_file("weka_claude_code_40_sessions.jsonl.gz")])
    found = analyze(trace, [None]).append_only
    assert (found.turn_pairs, found.kept) == (2112, 1960)
    assert round(found.kept / found.turn_pairs, 3) == 0.928
    assert {item.cause for item in found.causes} == {
        "history_changed",
        "start_changed",
        "other_thread",
    }
