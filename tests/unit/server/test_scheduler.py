"""Requests together: sharing in flight, preemption, aborts, faults. No torch."""

from __future__ import annotations

import random

import pytest
from engine_builders import (
    CheckingRunner,
    check_pages,
    expected_reply,
    make_engine,
    make_request,
    run,
    run_all,
)

from reference_server.engine import Engine, EngineDead, EngineSettings, QueueFull
from reference_server.request import Request


def submit(engine: Engine, prompt: list[int], max_tokens: int = 1) -> Request:
    request = make_request(engine, prompt, max_tokens)
    engine.submit(request)
    return request


def test_a_long_prompt_is_computed_in_chunks_beside_a_running_reply() -> None:
    """Budget 8 tokens: the reply takes 1 a step, the prompt of 21 the other 7: 3 steps."""
    engine = make_engine(20, max_batch_tokens=8)
    talker = submit(engine, [1, 2], max_tokens=50)
    engine.step()
    reader = submit(engine, [0] * 21)
    for _ in range(3):
        engine.step()
    assert reader.finish_reason == "length"
    assert talker.num_output == 4


def test_an_identical_prompt_in_flight_waits_and_then_hits() -> None:
    engine = make_engine(50, max_batch_tokens=8)
    prompt = [1, 2, 0, 1] * 6
    first, second = submit(engine, prompt), submit(engine, prompt)
    other = submit(engine, [2] * 3)
    engine.step()
    engine.step()
    assert second.split is None  # still waiting for the first one's blocks
    run_all(engine)
    assert first.split.hit == 0  # type: ignore[union-attr]
    assert second.split.hit == 20  # type: ignore[union-attr]
    assert other.finish_reason == "length"


def test_a_waiter_does_not_block_the_queue_behind_it() -> None:
    engine = make_engine(50, max_batch_tokens=12)
    submit(engine, [1] * 41)
    engine.step()
    waiter, behind = submit(engine, [1] * 41), submit(engine, [2] * 3)
    for _ in range(3):
        engine.step()
    assert behind.split is not None
    assert waiter.split is None


def test_the_youngest_gives_way_and_still_says_the_same() -> None:
    """Pool of 8 blocks of 4: two requests of 4 + 20 tokens need 6 each, so one is dropped."""
    engine = make_engine(8)
    prompts = [[1, 0, 2, 1], [2, 2, 0, 0]]
    requests = [submit(engine, p, max_tokens=20) for p in prompts]
    run_all(engine)
    assert [r.num_preemptions > 0 for r in requests] == [False, True]
    assert [r.output for r in requests] == [expected_reply(p, 20, 3) for p in prompts]
    assert requests[1].split.prompt_tokens == 4  # type: ignore[union-attr]


def test_preemption_does_not_count_as_a_replay() -> None:
    engine = make_engine(8)
    requests = [submit(engine, [t, 0, 2, 1, t], max_tokens=19) for t in (1, 2)]
    run_all(engine)
    assert requests[1].num_preemptions > 0
    assert [r.split.hit for r in requests] == [0, 0]  # type: ignore[union-attr]


def test_an_abort_frees_what_the_request_held() -> None:
    engine = make_engine(20, max_batch_tokens=6)
    running, waiting = submit(engine, [1] * 30), submit(engine, [1] * 30)
    engine.step()
    engine.abort(running)
    engine.abort(waiting)
    run_all(engine)
    assert (running.finish_reason, waiting.finish_reason) == ("abort", "abort")
    assert engine.tree.pool.num_used == 0
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead) == (1, 1)  # 6 tokens were computed
    assert engine.num_waiting == 0


def test_whoever_waits_for_an_aborted_request_goes_on() -> None:
    engine = make_engine(20, max_batch_tokens=6)
    first, second = submit(engine, [1] * 30), submit(engine, [1] * 30)
    engine.step()
    engine.abort(first)
    run_all(engine)
    assert second.finish_reason == "length"
    assert second.split.hit == 4  # type: ignore[union-attr]


def test_a_request_that_breaks_the_model_fails_alone() -> None:
    engine = make_engine(20)
    bad, good = submit(engine, [1] * 6, 5), submit(engine, [2] * 6, 5)
    engine.runner.fail_for.add(bad)  # type: ignore[attr-defined]
    run_all(engine)
    assert bad.finish_reason == "error"
    assert good.output == expected_reply([2] * 6, 5, 3)


def test_a_callback_that_raises_fails_its_request_alone() -> None:
    def broken(token: int, reason: str | None) -> bool:
        raise KeyError("a bug in a caller")

    engine = make_engine(20)
    bad, good = make_request(engine, [1] * 6, 5), make_request(engine, [2] * 6, 5)
    bad.observe = broken
    engine.submit(bad)
    engine.submit(good)
    run_all(engine)
    assert (bad.finish_reason, good.finish_reason) == ("error", "length")


def test_the_queue_is_bounded_in_requests_and_in_tokens_but_takes_one_of_any_size() -> None:
    settings = EngineSettings(
        block_size=4, num_blocks=50, max_queue_requests=2, max_queue_tokens=100
    )
    engine = Engine(CheckingRunner(4), settings)
    submit(engine, [1] * 150)
    with pytest.raises(QueueFull):
        submit(engine, [1])
    run_all(engine)
    submit(engine, [1])
    submit(engine, [2])
    with pytest.raises(QueueFull):
        submit(engine, [0])


def test_reset_drops_everything_when_idle_and_nothing_while_requests_run() -> None:
    engine = make_engine(20, max_batch_tokens=6)
    run(engine, [1, 2, 0, 1, 1], session="a")
    busy = submit(engine, [2] * 20)
    engine.step()
    assert engine._reset() is False
    run_all(engine)
    assert engine._reset() is True
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead, len(engine.tree.ghosts)) == (0, 0, 0)
    again = run(engine, [1, 2, 0, 1, 1], session="a")
    assert again.split.hit == again.split.miss_capacity == 0  # type: ignore[union-attr]
    assert busy.finish_reason == "length"


def test_an_engine_whose_device_is_lost_ends_its_requests_and_takes_no_more() -> None:
    engine = make_engine(20)
    request = make_request(engine, [1] * 6)
    waiting = make_request(engine, [1] * 6)
    ended: list[str | None] = []
    request.on_finish = waiting.on_finish = lambda r: ended.append(r.finish_reason)
    engine.runner.broken = True  # type: ignore[attr-defined]
    engine.submit(request)
    engine.submit(waiting)
    engine.start()
    engine.join()
    assert isinstance(engine.error, RuntimeError)
    assert ended == ["error", "error"]
    with pytest.raises(EngineDead):
        engine.submit(make_request(engine, [1]))


def test_stopping_ends_what_is_unfinished_as_aborted() -> None:
    engine = make_engine(20)
    request = make_request(engine, [1] * 6, max_tokens=40)
    engine.submit(request)
    engine.step()
    engine.stop()
    engine.start()
    engine.join()
    assert request.finish_reason == "abort"
    assert engine.error is None


def test_a_stopped_engine_says_at_once_that_it_resets_nothing() -> None:
    """It was waited for for a minute."""
    engine = make_engine(20)
    engine.start()
    engine.stop()
    with pytest.raises(EngineDead):
        engine.reset_prefix_cache(timeout_s=0.1)


@pytest.mark.parametrize("seed", range(60))
def test_random_traffic_with_aborts_and_faults_keeps_every_page_accounted_for(seed: int) -> None:
    rng = random.Random(seed)
    engine = make_engine(
        rng.randint(12, 40),
        max_batch_tokens=rng.randint(4, 30),
        max_num_seqs=rng.randint(1, 4),
    )
    stems = [[rng.randrange(3) for _ in range(rng.randint(1, 20))] for _ in range(3)]
    requests: list[Request] = []
    for _ in range(150):
        if rng.random() < 0.4:
            tail = [rng.randrange(3) for _ in range(rng.randint(1, 6))]
            request = submit(
                engine, rng.choice(stems) + tail * rng.randint(0, 1), rng.randint(1, 16)
            )
            requests.append(request)
            if rng.random() < 0.1:
                engine.runner.fail_for.add(request)  # type: ignore[attr-defined]
        if requests and rng.random() < 0.1:
            engine.abort(rng.choice(requests))
        engine.step()
        check_pages(engine)
    run_all(engine)
    assert engine.tree.pool.num_used == 0
    assert not engine.scheduler.has_work
    assert {r.finish_reason for r in requests} <= {"length", "abort", "error"}
    for request in requests:
        reply = expected_reply(request.tokens[: request.num_prompt], 16, 3)
        assert request.output == reply[: request.num_output]
        if request.split is not None:
            parts = request.split.hit + request.split.miss_capacity + request.split.miss_compulsory
            assert parts == request.num_prompt
            assert min(request.split.miss_capacity, request.split.miss_compulsory) >= 0


def test_three_long_replies_in_a_small_pool_preempt() -> None:
    """So that the test above, with pools and replies like these, is known to preempt."""
    engine = make_engine(12, max_num_seqs=4)
    requests = [submit(engine, [t] * 4, max_tokens=30) for t in (0, 1, 2)]
    run_all(engine)
    assert sum(r.num_preemptions for r in requests) > 0
