"""The split of each request by cause, and the bounds of what is remembered."""

from __future__ import annotations

import msgspec
from engine_builders import make_engine, run

from loadkit.core.split import Split
from reference_server.accounting import OwnBlocks
from reference_server.bounded import BoundedSet
from reference_server.request import Request


def parts(request: Request) -> dict[str, int]:
    """The parts that are not 0."""
    assert isinstance(request.split, Split)
    return {k: v for k, v in msgspec.structs.asdict(request.split).items() if v}


def test_an_identical_prompt_is_a_replay_of_the_same_or_of_another_session() -> None:
    """Blocks of 4, prompt of 10: 8 tokens can hit."""
    engine = make_engine(50)
    prompt = [1, 2, 0, 1, 2, 2, 2, 0, 1, 1]
    assert parts(run(engine, prompt, session="a")) == {"prompt_tokens": 10}
    again = parts(run(engine, prompt, session="a"))
    assert again == {"prompt_tokens": 10, "replay_same_session": 8}
    other = parts(run(engine, prompt, session="b"))
    assert other == {"prompt_tokens": 10, "replay_cross_session": 8}
    nobody = parts(run(engine, prompt))
    assert nobody == {"prompt_tokens": 10, "replay_cross_session": 8}


def test_a_session_continues_its_own_chain_reply_included() -> None:
    """Prompt 6 + reply 7: 12 tokens are computed, 3 blocks; the next turn has them all."""
    engine = make_engine(50)
    first = run(engine, [1, 2, 0, 1, 2, 2], max_tokens=7, session="a")
    second = run(engine, [*first.tokens, 1, 1], session="a")
    assert parts(second) == {"prompt_tokens": 15, "continuation": 12}


def test_what_another_session_put_there_is_shared_after_ones_own() -> None:
    """b's own first turn has 1 block of the 3 that a left."""
    engine = make_engine(50)
    chain = [1, 2, 0, 1, 2, 2, 2, 0, 1, 1, 1, 1]
    run(engine, [*chain, 2], session="a")
    assert parts(run(engine, chain[:5], session="b")) == {"prompt_tokens": 5, "shared": 4}
    mixed = parts(run(engine, [*chain, 0, 0], session="b"))
    assert mixed == {"prompt_tokens": 14, "continuation": 4, "shared": 8}


def test_blocks_seen_and_evicted_are_capacity_misses() -> None:
    engine = make_engine(3)
    run(engine, [1] * 13)
    run(engine, [2] * 13)
    lost = run(engine, [1] * 13)
    assert parts(lost) == {"prompt_tokens": 13, "miss_capacity": 12}
    assert lost.split.miss_compulsory == 1  # type: ignore[union-attr]


def test_another_salt_shares_nothing() -> None:
    engine = make_engine(50)
    run(engine, [1] * 13)
    other = Request([1] * 13, 4, b"another root", run(engine, [2]).params)
    engine.submit(other)
    while engine.step():
        pass
    assert parts(other) == {"prompt_tokens": 13}


def test_the_session_used_longest_ago_is_forgotten_first() -> None:
    own = OwnBlocks(max_sessions=10, max_blocks=5)
    own.add("a", [b"1", b"2"])
    own.add("b", [b"1", b"2"])
    own.add("a", [b"3"])
    own.add("c", [b"4"])
    assert [own.num_prefix(s, [b"1", b"2", b"3"]) for s in "abc"] == [3, 0, 0]
    assert own.num_blocks == 4


def test_a_bounded_set_forgets_what_was_noted_longest_ago() -> None:
    kept: BoundedSet[int] = BoundedSet(2)
    for key in (1, 2, 1, 3):
        kept.add(key)
    assert [key in kept for key in (1, 2, 3)] == [True, False, True]
