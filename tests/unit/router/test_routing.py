"""The prefix-aware rule, its index, and the ring: by hand, and against the forecast's simulation."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import orjson
import pytest

from loadkit.core.errors import InputError
from loadkit.forecast import prefix_router
from reference_server.router import block_index, ring, routing
from reference_server.router.block_index import BlockIndex
from reference_server.router.fleet import Fleet, Replica
from reference_server.router.prompt import BLOCK_BYTES, RoutedPrompt, read_prompt
from reference_server.router.ring import Ring
from reference_server.router.routing import PrefixAware, cheapest, make_routing


def fleet(count: int) -> list[Replica]:
    return [Replica(number, f"http://{number}") for number in range(count)]


def prompt(*blocks: int) -> RoutedPrompt:
    return RoutedPrompt(blocks, len(blocks), repr(blocks).encode())


def read(said: Any, **headers: str) -> RoutedPrompt:
    named = {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}
    found = read_prompt(named, orjson.dumps(said))
    assert found is not None
    return found


def chat(*texts: str, **said: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]} | said


# -- prompts


def test_a_longer_history_keeps_the_blocks_of_the_shorter() -> None:
    short, long = read(chat("a" * 300)), read(chat("a" * 300, "b" * 300))
    assert len(short.blocks) == 300 // BLOCK_BYTES + 1  # with the JSON around it
    assert long.blocks[: len(short.blocks)] == short.blocks
    assert len(long.blocks) == long.length > short.length


@pytest.mark.parametrize(
    ("said", "headers"),
    [
        (chat("a" * 300, model="other"), {}),
        (chat("a" * 300, cache_salt="salt"), {}),
        (chat("a" * 300), {"authorization": "Bearer other"}),
        (chat("a" * 300, tools=[{"type": "function"}]), {}),
    ],
)
def test_other_models_salts_keys_and_tools_share_no_block(
    said: dict[str, Any], headers: dict[str, str]
) -> None:
    assert set(read(said, **headers).blocks).isdisjoint(read(chat("a" * 300)).blocks)


@pytest.mark.parametrize(("attacker", "is_told"), [("victim", True), ("attacker", False)])
def test_where_a_prompt_goes_says_nothing_of_what_another_key_sent(
    attacker: str, is_told: bool
) -> None:
    """The victim has sent the candidate, or another prompt as long; the control has one key."""

    def choice(sent: str) -> tuple[int, int]:
        router, replicas = PrefixAware(3), fleet(3)
        router.pick(read(chat("c" * 300), authorization="Bearer busy"), replicas)
        router.pick(read(chat(sent), authorization="Bearer victim"), replicas)
        made = router.pick(read(chat("a" * 300), authorization=f"Bearer {attacker}"), replicas)
        return made.replica.index, made.matched

    assert (choice("a" * 300) != choice("b" * 300)) == is_told


def test_a_session_stays_together_and_without_one_equal_beginnings_do() -> None:
    assert read(chat("a"), x_session_id="s").affinity == read(chat("b"), x_session_id="s").affinity
    assert (
        read(chat("a", metadata={"session_id": "s"})).affinity
        == read(chat("b"), x_session_id="s").affinity
    )
    assert read(chat("a" * 99, "b")).affinity == read(chat("a" * 99, "c")).affinity
    assert read(chat("b" * 99)).affinity != read(chat("a" * 99)).affinity


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"messages": 1}', b'{"prompt": 5}', b"\xff"]
)
def test_what_has_no_prompt_is_none(body: bytes) -> None:
    assert read_prompt({}, body) is None


def test_text_and_token_prompts_grow_block_by_block() -> None:
    ids = list(range(100, 400))
    assert read({"prompt": ids}).blocks == read({"prompt": [*ids, 7]}).blocks[: 1200 // BLOCK_BYTES]
    assert len(read({"prompt": "a" * 130}).blocks) == 2


# -- the rule


def test_the_constants_are_those_of_the_simulation() -> None:
    assert routing.QUEUE_WEIGHT == prefix_router.QUEUE_WEIGHT
    assert ring.LOAD_BOUND == prefix_router.LOAD_BOUND
    assert block_index.MAX_HOLDERS == prefix_router.MAX_HOLDERS


def test_the_cost_is_new_blocks_plus_half_the_queue() -> None:
    """10 blocks: 8 held behind a queue of 15 cost 9.5, none held and no queue 10."""
    one, two = fleet(2)
    one.queued = 15
    assert cheapest(10, {0: 8, 1: 0}, [one, two]) is one
    one.queued = 17
    assert cheapest(10, {0: 8, 1: 0}, [one, two]) is two


def test_ties_go_to_the_one_that_computed_least() -> None:
    one, two = fleet(2)
    one.computed = 1
    assert cheapest(4, {0: 0, 1: 0}, [one, two]) is two


def test_a_replica_far_ahead_of_the_mean_queue_gets_nothing_whatever_it_holds() -> None:
    """Mean queue 50: with 1.25 times that and the prompt's 4, 66 is the most."""
    one, two = fleet(2)
    one.queued, two.queued = 100, 0
    assert cheapest(4, {0: 4, 1: 0}, [one, two]) is two


@pytest.mark.parametrize("seed", range(4))
def test_without_queues_every_choice_is_the_simulations(seed: int) -> None:
    """Random prompts over a tree, requests far apart: the router's index against the compiled one."""
    rng = random.Random(seed)
    chains = [random_chain(rng) for _ in range(300)]
    count = 5
    router, replicas = PrefixAware(count), fleet(count)
    for replica in replicas:
        replica.room = 60
    chosen = [router.pick(prompt(*chain), replicas).replica.index for chain in chains]
    assert chosen == simulated(chains, count, room=60)
    assert len(set(chosen)) == count


def random_chain(rng: random.Random) -> list[int]:
    """A path from one of 6 roots; a node's number names the path to it."""
    node, chain = rng.randrange(6), []
    for _ in range(rng.randint(1, 8)):
        chain.append(node)
        node = node * 3 + 6 + rng.randrange(3)
    return chain


def simulated(chains: list[list[int]], count: int, room: int) -> list[int]:
    n, nodes = len(chains), np.array([node for chain in chains for node in chain])
    names, flat = np.unique(nodes, return_inverse=True)
    ptr = np.cumsum([0, *map(len, chains)])
    ones, index = np.ones(len(names), np.int64), np.arange(n)
    found = prefix_router._route(
        ptr, flat, ones, index, np.ones(n, bool), index * 1e6, count, room, 1.0,
        np.full((len(names), count), -1, np.int16), np.zeros((len(names), count), np.int64),
    )  # fmt: skip
    return [int(replica) for replica in found]


# -- what is learned


def test_fewer_cached_than_expected_says_how_much_the_replica_forgets() -> None:
    """Blocks 1-4 are 20 computed blocks old when they are asked for again, and none is there."""
    router, (only,) = PrefixAware(1), fleet(1)
    router.pick(prompt(1, 2, 3, 4), [only])
    router.pick(prompt(*range(10, 30)), [only])
    choice = router.pick(prompt(1, 2, 3, 4), [only])
    assert choice.matched == 4
    router.learn(choice, prompt_tokens=64, cached_tokens=0)
    assert only.room == 20


def test_more_cached_than_expected_takes_it_back() -> None:
    router, (only,) = PrefixAware(1), fleet(1)
    only.room = 5
    router.pick(prompt(1, 2, 3, 4), [only])
    router.pick(prompt(*range(10, 30)), [only])
    choice = router.pick(prompt(1, 2, 3, 4), [only])
    assert choice.matched == 0
    router.learn(choice, prompt_tokens=64, cached_tokens=48)
    assert only.room == 20


def test_a_replica_that_was_reset_holds_nothing() -> None:
    router, replicas = PrefixAware(2), fleet(2)
    first = router.pick(prompt(1, 2, 3), replicas)
    assert router.pick(prompt(1, 2, 3), replicas).matched == 3
    first.replica.forget()
    assert router.pick(prompt(1, 2, 3), replicas).matched == 0


def test_the_index_is_bounded_and_drops_tails_first() -> None:
    index, (only,) = BlockIndex(max_blocks=3), fleet(1)
    index.remember([1, 2], only)
    index.remember([10, 11], only)
    assert len(index) == 3
    assert index.matched([1, 2], [only]) == {0: 1}
    assert index.matched([10, 11], [only]) == {0: 2}


# -- the ring


def test_a_key_goes_to_one_place_and_moves_only_when_that_is_gone() -> None:
    circle, replicas = Ring(4), fleet(4)
    keys = [b"%d" % n for n in range(400)]
    before = {key: circle.pick(key, replicas).index for key in keys}
    left = [replica for replica in replicas if replica.index != 2]
    after = {key: circle.pick(key, left).index for key in keys}
    assert all(after[key] == place for key, place in before.items() if place != 2)
    assert min(Counter(before.values()).values()) > 50


def test_no_replica_gets_more_than_its_share_of_what_runs() -> None:
    """One key, 100 requests that never end, 4 replicas: at most ceil(1.25 x 100 / 4) each."""
    circle, replicas = Ring(4), fleet(4)
    for _ in range(100):
        circle.pick(b"key", replicas).num_in_flight += 1
    assert max(replica.num_in_flight for replica in replicas) == 32
    assert sum(replica.num_in_flight for replica in replicas) == 100


def test_a_routing_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="prefix-aware, sticky, random"):
        make_routing("round-robin", 2)


def test_replicas_already_tried_are_left_out() -> None:
    group = Fleet(fleet(3))
    group.replicas[0].is_up = False
    assert [r.index for r in group.up(frozenset({2}))] == [1]
