"""One tenant tries to find out what another one sent, through every layer that remembers anything.

Every trial is played twice: the victim has sent the attacker's candidate, or another prompt of the
same length. Under keys of their own the attacker must see exactly the same, to the byte and to the
computed token, so that every measure has an AUC of 0.5; the control, both under one key, must show
that the attack works. benchmarks/tenant_attack.py does it by the clock.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from probe_world import ATTACKER, CHAT, OTHER, VICTIM, ProbeWorld, Seen, completion, run
from roc import auc

Scenario = Callable[[ProbeWorld, str, list[int], list[int]], Awaitable[list[Seen]]]
TRIALS = 4
LONG, SHORT = 19, 3  # tokens: four blocks and a tail; a tail alone


async def one_after_another(
    world: ProbeWorld, attacker: str, sent: list[int], candidate: list[int]
) -> list[Seen]:
    await world.complete(VICTIM, sent)
    return [await world.complete(attacker, candidate)]


async def while_it_is_computed(
    world: ProbeWorld, attacker: str, sent: list[int], candidate: list[int]
) -> list[Seen]:
    """The attacker comes when the first of five steps of the victim's prompt is done."""
    first = await world.begin(VICTIM, completion(sent))
    await world.step()
    second = await world.begin(attacker, completion(candidate))
    await world.end(first)
    return [await world.end(second)]


async def after_a_flood(
    world: ProbeWorld, attacker: str, sent: list[int], candidate: list[int]
) -> list[Seen]:
    """24 blocks of somebody else push the victim's off a device of 20."""
    await world.complete(VICTIM, sent)
    for start in range(3):
        await world.complete(OTHER, list(range(100 + 40 * start, 132 + 40 * start)))
    return [await world.complete(attacker, candidate)]


async def a_conversations_name(
    world: ProbeWorld, attacker: str, sent: list[int], candidate: list[int]
) -> list[Seen]:
    """Under the victim's session id the guard says 409 to whoever sends another history; then as a
    fork of the victim's conversation."""
    await world.ask(VICTIM, chat(sent), path=CHAT, x_session_id="s")
    same = await world.ask(attacker, chat(candidate), path=CHAT, x_session_id="s")
    forks = {"x_session_id": "f", "x_parent_session_id": "s"}
    return [same, await world.ask(attacker, chat(candidate, [1]), path=CHAT, **forks)]


async def eviction_order(
    world: ProbeWorld, attacker: str, sent: list[int], candidate: list[int]
) -> list[Seen]:
    """Whether the attacker's own blocks stay depends on what the victim's are worth."""
    await world.complete(attacker, candidate[::-1])
    for _ in range(3):
        await world.complete(VICTIM, sent)
    return [await world.complete(attacker, ids) for ids in (candidate, candidate[::-1])]


LAYERS: dict[str, tuple[Scenario, int, dict[str, Any]]] = {
    "device": (one_after_another, LONG, {}),
    "kept tail": (one_after_another, SHORT, {}),
    "drafts": (one_after_another, SHORT, {"draft_tokens": 3}),
    "in flight": (while_it_is_computed, LONG, {"max_batch_tokens": 4}),
    "ghosts": (after_a_flood, LONG, {"num_blocks": 20}),
    "host": (after_a_flood, LONG, {"num_blocks": 20, "lower": (60,)}),
    "disk": (after_a_flood, LONG, {"num_blocks": 20, "lower": (4, 60)}),
    "quotas": (one_after_another, LONG, {"tenant_quota_blocks": 20}),
    "guard": (a_conversations_name, SHORT, {}),
    "diversity": (eviction_order, LONG, {"policy": "diversity", "num_blocks": 16}),
    "lfu": (eviction_order, LONG, {"policy": "lfu", "num_blocks": 16}),
    "gdsf": (eviction_order, LONG, {"policy": "gdsf", "num_blocks": 16}),
    "slru": (eviction_order, LONG, {"policy": "slru", "num_blocks": 16}),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_under_another_key_an_attacker_sees_the_same_whatever_was_sent(layer: str) -> None:
    for trial in range(TRIALS):
        hit, other = play(layer, ATTACKER, trial)
        assert [seen.parts for seen in hit] == [seen.parts for seen in other]


@pytest.mark.parametrize("layer", LAYERS)
def test_under_the_same_key_the_attack_always_works(layer: str) -> None:
    """The control: some measure of the same attack tells all trials apart."""
    trials = [play(layer, VICTIM, trial) for trial in range(TRIALS)]
    assert max(aucs(trials).values()) == 1.0


def play(layer: str, attacker: str, trial: int) -> list[list[Seen]]:
    """What the attacker saw where its candidate had been sent, and where another prompt had."""
    scenario, length, settings = LAYERS[layer]
    rng = random.Random(trial)
    candidate, other = ([rng.randrange(2, 340) for _ in range(length)] for _ in range(2))
    return [
        run(partial(scenario, ProbeWorld(**settings), attacker, sent, candidate))
        for sent in (candidate, other)
    ]


def aucs(trials: list[list[list[Seen]]]) -> dict[str, float]:
    """By measure; one below 0.5 tells as much as one above."""
    sides = [[merged(side) for side in sides] for sides in zip(*trials, strict=True)]
    names = set.intersection(*(set(row) for rows in sides for row in rows))
    found = {}
    for name in sorted(names):
        one, two = ([row[name] for row in rows] for rows in sides)
        share = auc(one, two)
        found[name] = max(share, 1 - share)
    return found


def merged(answers: list[Seen]) -> dict[str, float]:
    return {
        f"{number} {name}": value
        for number, seen in enumerate(answers)
        for name, value in seen.features.items()
    }


def chat(ids: list[int], more: list[int] | None = None) -> dict[str, Any]:
    """Digits are a token each, so that all texts of as many are as long."""
    messages = [
        {"role": "user", "content": "".join(f"{i:03}" for i in part)}
        for part in ([ids] if more is None else [ids, more])
    ]
    return {"messages": messages, "max_tokens": 3, "temperature": 0}


def test_what_the_operator_sees_of_all_is_shown_to_no_tenant() -> None:
    async def scenario() -> list[str]:
        world = ProbeWorld()
        paths = ("/reset_prefix_cache", "/request_log/start", "/request_log/take")
        return [(await world.ask(ATTACKER, {}, path=path)).parts[0][1][:3] for path in paths]

    assert run(scenario) == ["403"] * 3


@pytest.mark.parametrize(("quota", "is_told"), [(None, True), (20, False)])
def test_how_much_a_victim_computes_shows_in_ones_own_evictions_unless_quotas_add_up(
    quota: int | None, is_told: bool
) -> None:
    """No content, but whether the victim's prompt was in its cache: the attacker fills the cache,
    the victim computes or hits, and the attacker counts what it has lost. Two quotas of 20 in 40."""

    async def scenario(prompts: list[list[int]]) -> list[Seen]:
        world = ProbeWorld(num_blocks=40, tenant_quota_blocks=quota)
        await world.complete(VICTIM, prompts[0])
        own = list(range(2, 81))  # 19 blocks and a tail
        await world.complete(ATTACKER, own)
        for prompt in prompts:
            await world.complete(VICTIM, prompt)
        return [await world.complete(ATTACKER, own)]

    again, new = ([list(range(100 + 70 * step * n, 160 + 70 * step * n)) for n in range(3)]
                  for step in (0, 1))  # fmt: skip
    hit, missed = (run(partial(scenario, prompts)) for prompts in (again, new))
    assert (hit[0].parts != missed[0].parts) == is_told


def test_a_full_queue_does_not_say_how_much_others_have_in_it() -> None:
    async def scenario(length: int) -> Seen:
        world = ProbeWorld(max_queue_requests=1)
        waiting = await world.begin(VICTIM, completion(list(range(2, 2 + length))))
        refused = await world.ask(ATTACKER, completion([5]))
        await world.end(waiting)
        return refused

    short, long = run(partial(scenario, 5)), run(partial(scenario, 50))
    assert short.features["status"] == 429
    assert short.parts == long.parts


def test_the_tokenizer_does_not_remember_words() -> None:
    """It would be a fifth faster for a text of words that somebody has sent before."""
    resized: list[int] = []

    class Model:
        def _resize_cache(self, size: int) -> None:
            resized.append(size)

    from reference_server.service import forget_words

    class Backend:
        model = Model()

    class Fast:
        backend_tokenizer = Backend()

    class Named:
        hf = Fast()

    forget_words(Named())  # type: ignore[arg-type]
    assert resized == [0]
    world = ProbeWorld()
    assert world.service.tokenizer is not None
    assert hasattr(world.service.tokenizer.hf.backend_tokenizer.model, "_resize_cache")
