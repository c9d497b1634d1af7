"""One tenant's flood and another's hits, with the control without quotas."""

from __future__ import annotations

import random

from engine_builders import make_engine, make_lower, make_request, run_all

from reference_server.engine import Engine
from reference_server.request import Request, SamplingParams

ROUNDS, VICTIM_PROMPTS, QUOTA, CAPACITY = 40, 4, 30, 60


def victim_hit_rate(*, quota: int | None, flood: bool) -> float:
    """A victim sends 4 prompts of 24 tokens in turn; between two of them a flooder sends 3 new
    prompts of 40. Blocks of 4."""
    engine = make_engine(CAPACITY, vocabulary=50, tenant_quota_blocks=quota)
    rng = random.Random(1)
    stems = [[start] * 20 for start in range(VICTIM_PROMPTS)]
    hit = asked = 0
    for turn in range(ROUNDS):
        for stem in stems:
            prompt = [*stem, turn, turn, turn, turn]
            request = serve(engine, prompt, b"victim")
            assert request.split is not None
            hit, asked = hit + request.split.hit, asked + len(prompt)
            for _ in range(3 if flood else 0):
                serve(engine, [rng.randrange(50) for _ in range(40)], b"flooder")
    return hit / asked


def serve(engine: Engine, prompt: list[int], tenant: bytes):  # type: ignore[no-untyped-def]
    request = make_request(engine, prompt, 1, tenant=tenant)
    engine.submit(request)
    run_all(engine)
    return request


def test_a_flooder_costs_a_victim_at_most_two_points_with_quotas_and_much_more_without() -> None:
    alone = victim_hit_rate(quota=None, flood=False)
    assert alone > 0.75
    assert victim_hit_rate(quota=None, flood=True) < alone - 0.5
    assert victim_hit_rate(quota=QUOTA, flood=True) >= alone - 0.02


def test_a_tenant_never_holds_more_than_its_quota_when_it_comes_alone() -> None:
    engine = make_engine(40, vocabulary=50, tenant_quota_blocks=10)
    for start in range(30):
        serve(engine, [start] * 33, b"one")
        assert engine.tree.pool.quotas.num_counted(b"one") <= 10
    serve(engine, [1] * 33, b"other")
    assert engine.tree.pool.quotas.num_counted(b"one") == 10


def test_a_prompt_longer_than_the_quota_is_said_not_to_fit() -> None:
    engine = make_engine(40, tenant_quota_blocks=10)
    assert engine.max_new_tokens(40) == 1
    assert engine.max_new_tokens(41) == 0


def test_who_waits_for_its_own_quota_does_not_keep_others_waiting() -> None:
    engine = make_engine(40, vocabulary=50, tenant_quota_blocks=10, max_batch_tokens=50)
    hogs = [make_request(engine, [n] * 36, 4, tenant=b"hog") for n in range(2)]
    other = make_request(engine, [9] * 8, 1, tenant=b"other")
    for request in (*hogs, other):
        engine.submit(request)
    engine.step()
    assert [r.split is not None for r in (*hogs, other)] == [True, False, True]
    run_all(engine)
    assert [r.finish_reason for r in (*hogs, other)] == ["length"] * 3


def test_without_a_name_the_isolation_domain_is_the_tenant() -> None:
    engine = make_engine(10)
    request = make_request(engine, [1])
    assert request.tenant == request.root


def test_another_domain_gets_no_block_no_tail_and_no_guess_of_the_same_prompt() -> None:
    """All tokens are computed and every reply token is a step, as if nobody had been before."""
    prompt = [1, 2, 0, 1, 2, 2, 2]
    counts = []
    engine = make_engine(60, draft_tokens=3, lower=make_lower(20))
    for root in (b"mine", b"mine", b"theirs"):
        request = Request(list(prompt), 4, root, SamplingParams(max_tokens=9))
        engine.submit(request)
        steps = 0
        while engine.step():
            steps += 1
        counts.append((sum(request.tier_tokens), request.num_kept_tail, request.num_drafted, steps))
    assert counts[1] != counts[0]
    assert counts[2] == counts[0] == (0, 0, 0, 9)
