"""Requests torn from their sessions: what is read off messages, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from trials import capacities_of, rates_at, torn_log
from worlds import make_world

from loadkit.core.chats import Chats
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.forecast.torn import before_share, mend, seen_gaps, sessions_ending
from loadkit.forecast.turns import ChatTurns, Turns, turn_counts
from loadkit.traces import TokenRequest, token_trace


class Letters:
    """A token a letter; a chat is written as <role>content, one after another, and then <a>."""

    def render_chat(self, messages: Sequence[Any], tools: Any = None) -> str:
        return "".join(f"<{said['role'][0]}>{said['content']}" for said in messages) + "<a>"

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]


def chat(*said: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turns."""
    return [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)
    ]


def logged(*requests: list[dict[str, str]], block_size: int = 2) -> tuple[Trace, ChatTurns]:
    letters, chats = Letters(), Chats()
    rows = []
    for at, messages in enumerate(requests):
        chats.add_messages(messages, None)
        text = letters.render_chat(messages)
        rows.append(TokenRequest([ord(letter) for letter in text], arrival_s=100.0 * at))
    trace = replace(token_trace(rows, block_size), chats=chats)
    return trace, ChatTurns(trace, chats, cast(Tokenizer, letters))


def test_a_chat_shows_its_earlier_turns_with_their_lengths() -> None:
    # <u>hi<a> is 8 tokens; with the reply `you`, 11; the next `<` is common to what would follow.
    _, source = logged(chat("hi", "you", "and?"), chat("hi"))
    assert source.counts.tolist() == [2, 1]
    turns = source.of(np.array([0, 1]))
    assert turns.ptr.tolist() == [0, 2, 3]
    assert turns.prompt_tokens.tolist() == [8, 21, 8]
    assert turns.kept_tokens.tolist() == [12, 21, 8]
    assert turns.key[0] == turns.key[2] != turns.key[1]


def test_only_what_a_template_left_of_the_earlier_prompt_counts() -> None:
    class Forgetful(Letters):
        def render_chat(self, messages: Sequence[Any], tools: Any = None) -> str:
            return super().render_chat([said | {"content": said["content"][: 9 - len(messages)]}
                                        for said in messages])  # fmt: skip

    trace, _ = logged(chat("12345678", "r", "next"))
    assert trace.chats is not None
    turns = ChatTurns(trace, trace.chats, cast(Tokenizer, Forgetful())).of(np.array([0]))
    assert turns.prompt_tokens[0] == len("<u>123456")


def test_a_request_that_is_no_chat_shows_nothing() -> None:
    chats = Chats()
    chats.add_prompt("one long string")
    chats.add_nothing()
    chats.add_messages([*chat("a", "b", "c"), {"role": "tool", "content": "d"}], None)
    assert turn_counts(chats).tolist() == [0, 0, 2]


def test_as_many_sessions_end_at_a_turn_as_do_not_reach_the_next() -> None:
    random = np.random.default_rng(0)
    assert sessions_ending(np.array([0, 4, 2, 1]), random).tolist() == [0, 2, 1, 1]
    # 2 at the first turn and 4 at the second is chance: three sessions of two turns.
    assert sessions_ending(np.array([0, 2, 4]), random).tolist() == [0, 0, 3]


def hand_log() -> tuple[Trace, Turns]:
    """Blocks of 2; a first turn, a second and a third one of three sessions."""
    rows = [TokenRequest([7, 8], arrival_s=0.0, session="b"),
            TokenRequest([8, 8, 8, 8], arrival_s=500.0, session="c"),
            TokenRequest([1, 2, 3, 4, 5, 6], arrival_s=900.0, session="a")]  # fmt: skip
    lengths = np.array([2, 2, 4, 2, 5, 6])
    return token_trace(rows, 2), Turns(np.array([0, 1, 3, 6]), lengths, lengths, np.arange(6))


def test_a_torn_request_becomes_its_session_up_to_it() -> None:
    # As many reach the third turn as the first, so one session of three turns has as many requests.
    trace, turns = hand_log()
    mended = mend(trace, turns, np.random.default_rng(0))
    whole = mended.trace
    assert whole.arrival_s is None  # nothing shows how far turns are apart
    chains = [whole.block_ids[a:b].tolist() for a, b in pairwise(whole.block_ptr)]
    third = trace.block_ids[3:].tolist()
    assert chains == [third[:1], third[:2], third]
    assert whole.session.tolist() == [0, 0, 0]
    assert whole.prompt_tokens.tolist() == [2, 5, 6]
    assert whole.partial_page is not None
    assert whole.partial_page.tolist() == [False, True, False]
    assert mended.times == 1


def test_time_between_turns_is_seen_where_two_of_a_session_are_logged() -> None:
    trace, _ = hand_log()
    several = replace(
        trace,
        prompt_tokens=np.array([2, 4, 6]), block_ptr=np.array([0, 1, 2, 3]), block_ids=np.zeros(3, int),
        prompt_key=np.arange(3), session=np.array([0, 0, 1]), arrival_s=np.array([0.0, 60.0, 70.0]),
        output_tokens=np.full(3, -1),
    )  # fmt: skip
    assert seen_gaps(several, np.array([1, 3, 2])).tolist() == [30.0]
    assert before_share(several, np.array([1, 2, 2])) == 0.5
    assert before_share(several, np.array([1, 1, 1])) is None


@cache
def production() -> Trace:
    return make_world("org_tree", 4, 0.3)


def test_torn_requests_forecast_production_where_their_own_rate_is_far_too_low() -> None:
    log, turns = torn_log(production(), 0.3, 1)
    sizes = capacities_of(production())
    truth = rates_at(production(), sizes)
    times = production().num_requests / log.num_requests
    answer = forecast(log, times, curve_blocks=sizes, sampled="requests", turns=turns)
    assert answer.hit_rate.method == "torn_requests"
    found = np.array([point.hit_rate for point in answer.curve])
    assert np.abs(found - truth).max() < 0.06
    assert np.abs(rates_at(log, sizes) - truth).max() > 0.1
    assert "each drawn by itself" in (answer.assumes or "")


def test_torn_requests_are_refused_without_messages_and_where_sessions_cannot_be_told() -> None:
    log, turns = torn_log(production(), 0.3, 1)
    assert "a log of messages" in (forecast(log, 3.3, sampled="requests").needs or "")
    wrong = forecast(log, 20.0, sampled="requests", turns=turns)
    assert "or the log was drawn otherwise" in (wrong.needs or "")
    assert wrong.hit_rate.estimate is None


def test_without_pairs_of_one_session_only_an_infinite_cache_is_forecast() -> None:
    log, turns = torn_log(production(), 0.3, 1)
    # With every request in a session of its own no time between turns is seen.
    alone = replace(log, session=np.arange(log.num_requests), num_sessions=log.num_requests)
    few = forecast(alone, 100.0, 1000, sampled="requests", turns=turns)
    assert "only one infinite cache" in (few.needs or "")
    infinite = forecast(alone, 20.0, sampled="requests", turns=turns, target_points=50)
    assert infinite.hit_rate.estimate is not None
    assert infinite.curve == ()


def test_at_1x_a_torn_log_is_counted_like_any_other() -> None:
    log, _ = torn_log(production(), 0.3, 1)
    assert forecast(log, 1.0, 500, sampled="requests").hit_rate.method == "exact"


def test_a_log_whose_earlier_turns_are_missing_is_warned_about() -> None:
    trace, _ = logged(*[chat(f"hello {at}", "reply", "more") for at in range(120)])
    answer = forecast(trace, 5.0)
    assert any("--sampled requests" in note for note in answer.warnings)
    with pytest.raises(Exception, match="one of sessions, requests, tenants"):
        forecast(trace, 5.0, sampled="users")
