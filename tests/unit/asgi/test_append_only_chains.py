"""The guard against a plain model of the rule, its receipts, and what it costs in memory."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from guarded_app import Client, reply, stream_of, user
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.asgi.canonical import canonical
from loadkit.asgi.chat_request import NoId, NotReadable, read_request
from loadkit.asgi.histories import Histories
from loadkit.asgi.receipt import Signer
from loadkit.asgi.reply_digest import StreamedReply, WholeReply
from loadkit.core.digest_chain import DIGEST_SIZE, digest_chain, link

NAMED = {"headers": [(b"x-session-id", b"s")]}
TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)
CHANGES = st.lists(st.tuples(st.sampled_from(["grow", "edit", "cut", "same"]), st.integers(0, 9)))


@given(changes=CHANGES)
@settings(max_examples=60, deadline=None)
def test_any_walk_is_judged_as_lists_would_be(changes: list[tuple[str, int]]) -> None:
    """The oracle keeps the messages themselves: the next must begin with the last admitted."""
    client = Client()
    client.app.reply = {}  # unlike any message; checked elsewhere
    known: list[Any] = [user("0")]
    client.post(known, stream=True, n=99)  # never finishes: replies stay unchecked
    for number, (change, where) in enumerate(changes, 1):
        asked = changed(known, change, where, number)
        is_right = asked[: len(known)] == known
        answer = client.post(asked, stream=True, n=99)
        assert answer.status_code == (200 if is_right else 409)
        if is_right:
            known = asked
        else:
            first = next(
                (i for i, (a, b) in enumerate(zip(known, asked, strict=False)) if a != b),
                len(asked),
            )
            assert answer.json()["error"]["param"] == f"messages[{first}]"


def changed(known: list[Any], change: str, where: int, number: int) -> list[Any]:
    at = where % len(known)
    if change == "grow":
        return [*known, user(str(number))]
    if change == "edit":
        return [*known[:at], user(f"edit {number}"), *known[at + 1 :], user("more")]
    return known[:at] if change == "cut" else list(known)


@given(text=TEXT, arguments=TEXT, num_calls=st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_a_streamed_reply_has_the_digest_of_the_whole_one(
    text: str, arguments: str, num_calls: int
) -> None:
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": arguments}}
        for i in range(num_calls)
    ]
    whole = {"role": "assistant", "content": text, "tool_calls": calls}
    streamed, entire = StreamedReply(b"parent", 1), WholeReply(b"parent")
    for event in stream_of(whole):
        assert not streamed.is_finished or b"[DONE]" in event
        streamed.feed(event)
    entire.feed(json.dumps({"choices": [{"message": whole}]}).encode())
    expected = link(b"parent", canonical(whole))
    assert streamed.digests() == entire.digests() == expected


def test_every_choice_of_n_may_be_the_one_that_is_kept() -> None:
    streamed = StreamedReply(b"", 2)
    for index, text in enumerate(["a", "b"]):
        choice = {"index": index, "delta": {"content": text}, "finish_reason": "stop"}
        assert not streamed.is_finished
        streamed.feed(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    assert streamed.is_finished
    assert streamed.digests() == link(b"", reply("a")) + link(b"", reply("b"))


@given(
    body=st.recursive(
        st.none() | st.booleans() | TEXT, lambda s: st.lists(s) | st.dictionaries(TEXT, s)
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_messages_hold_is_read_or_called_unreadable(body: Any) -> None:
    for said in (body, {"messages": body}, {"messages": [body], "tools": body, "metadata": body}):
        data = json.dumps(said).encode()
        try:
            asked = read_request(NAMED, data, b"k" * 32)
        except NotReadable:
            assert not isinstance(said, dict) or not isinstance(said.get("messages"), list)
        else:
            assert len(asked.chain) == DIGEST_SIZE * (1 + len(said["messages"]))


def test_nesting_deeper_than_can_be_written_again_is_unreadable() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    with pytest.raises(NotReadable):
        read_request(NAMED, json.dumps({"messages": [deep]}).encode(), b"k" * 32)
    with pytest.raises(NoId):
        read_request({"headers": []}, b'{"messages": []}', b"k" * 32)


@given(
    texts=st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3), min_size=2, max_size=5)
)
@settings(max_examples=40, deadline=None)
def test_of_any_requests_at_once_those_admitted_agree(texts: list[list[str]]) -> None:
    """All are checked before any is admitted; of two that got 200, one begins with the other."""
    client = Client()
    all_are_in = asyncio.Barrier(len(texts))

    async def meet(asked: dict[str, Any]) -> None:
        await all_are_in.wait()

    client.app.before_answer = meet
    chats = [[user(text) for text in row] for row in texts]
    answers = client.together(*[(chat, "s", {}) for chat in chats])
    pairs = zip(chats, answers, strict=True)
    admitted = sorted((chat for chat, answer in pairs if answer.status_code == 200), key=len)
    assert admitted
    assert all(long[: len(short)] == short for short, long in pairwise(admitted))
    refused = len(chats) - len(admitted)
    assert client.count("rejections", reason="race") == refused
    if refused:  # each of them contradicts what was admitted in the end
        longest = admitted[-1]
        others = [c for c, a in zip(chats, answers, strict=True) if a.status_code == 409]
        assert all(other[: len(longest)] != longest[: len(other)] for other in others)


@given(
    parent=st.lists(st.sampled_from("ab"), min_size=1),
    fork=st.lists(st.sampled_from("ab"), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_a_fork_passes_if_it_begins_as_its_parent_does(parent: list[str], fork: list[str]) -> None:
    client = Client()
    client.post([user(text) for text in parent], "parent")
    named = {"headers": {"x-parent-session-id": "parent"}}
    answer = client.post([user(text) for text in fork], "fork", **named)
    assert answer.status_code == (200 if fork[0] == parent[0] else 409)


# -- receipts


def receipt_of(answer: Any) -> dict[str, dict[str, str]]:
    return {"headers": {"x-append-only-receipt": answer.headers["x-append-only-receipt"]}}


def test_a_receipt_carries_the_history_to_another_replica() -> None:
    one, other = (Client(secret="shared") for _ in range(2))
    shown = receipt_of(one.post([user("a"), reply("hello"), user("b")]))
    rewritten = other.post([user("X"), reply("hello"), user("b")], **shown)
    assert rewritten.status_code == 409
    assert rewritten.json()["error"]["param"] == "messages"
    assert other.post([user("a")], **shown).status_code == 409
    longer = [user("a"), reply("hello"), user("b"), reply("hello"), user("c")]
    assert other.post(longer, **shown).status_code == 200
    assert other.count("requests", outcome="extended") == 1
    assert other.count("rejections", reason="receipt") == 2


def test_a_replica_that_missed_turns_does_not_refuse_what_the_receipt_shows() -> None:
    """One answered "hello", the other "hi" to the same turn; the client kept "hi"."""
    one, other = (Client(secret="shared") for _ in range(2))
    one.post([user("a")])
    other.app.reply = reply("hi")
    other.post([user("a")])
    shown = receipt_of(other.post([user("a"), reply("hi"), user("b")]))
    longer = [user("a"), reply("hi"), user("b"), reply("hi"), user("c")]
    assert one.post(longer).status_code == 409
    assert one.post(longer, **shown).status_code == 200


@pytest.mark.parametrize(
    "text", ["", "v1", "v1.2.zz.0", "v1.x.00.0", "v0.1.00.0", "v1.9.00." + "0" * 64]
)
def test_what_was_not_signed_here_is_no_receipt(text: str) -> None:
    assert Signer(b"secret").read(b"key", text) is None


def test_a_receipt_is_for_its_conversation_and_count_alone() -> None:
    signer, chain = Signer(b"secret"), b"".join(digest_chain([user("a")]))
    signed = signer.sign(b"key", chain)
    found = signer.read(b"key", signed)
    assert found is not None
    assert (found.count, found.digest) == (2, chain[-DIGEST_SIZE:])
    assert signer.read(b"other", signed) is None
    assert signer.read(b"key", signed.replace("v1.2", "v1.1")) is None
    assert Signer(b"another").read(b"key", signed) is None


def test_without_a_secret_no_receipt_is_given() -> None:
    assert "x-append-only-receipt" not in Client().post([user("a")]).headers


# -- memory


def test_ten_thousand_conversations_of_twenty_messages_take_less_than_20_mb() -> None:
    histories = Histories(16 << 20, 3600.0, lambda: 1.5)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        seed = number.to_bytes(DIGEST_SIZE, "big")
        history = histories.use(link(b"", number.to_bytes(8, "big").hex()), seed * 21)
        history.num_open += 1
        history.end_reply(seed * 2)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(histories) == 10_000
    assert taken < 20e6
    assert taken < histories.num_bytes  # the bound counts at least what is taken


def test_over_the_bound_the_conversation_unused_for_longest_is_forgotten() -> None:
    chain = b"0" * 232  # with 768 beside it: 1000 bytes
    histories = Histories(2_000, 3600.0, lambda: 0.0)
    for key in (b"a", b"b", b"a", b"c"):
        histories.use(key, chain)
    assert (histories.get(b"b"), len(histories), histories.num_bytes) == (None, 2, 2_000)


def test_a_conversation_unused_for_the_ttl_is_forgotten() -> None:
    now = [0.0]
    client = Client(ttl_s=10.0, clock=lambda: now[0])
    client.post([user("a")])
    now[0] = 9.0
    assert client.post([user("b")]).status_code == 409
    now[0] = 11.0
    assert client.post([user("b")]).status_code == 200
