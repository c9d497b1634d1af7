"""n > 1: sequences that share one prompt's pages and are one request to whoever counts."""

from __future__ import annotations

from engine_builders import expected_reply, make_engine, make_request, run_all

from reference_server.engine import Engine
from reference_server.request import Request

PROMPT = [1, 2, 0, 1, 2, 2, 2, 0, 1, 1, 0]  # blocks of 4: two, and a tail of 3


def submit(engine: Engine, num: int, max_tokens: int = 6) -> list[Request]:
    leader = make_request(engine, PROMPT, max_tokens)
    made = [leader, *(leader.another_choice(i) for i in range(1, num))]
    for request in made:
        engine.submit(request)
    return made


def test_choices_compute_the_prompt_once_and_one_token_each() -> None:
    engine = make_engine(50)
    choices = submit(engine, 4)
    computed = 0
    execute = engine.runner.execute

    def counting(chunks):  # type: ignore[no-untyped-def]
        nonlocal computed
        computed += sum(c.end for c in chunks if c.end <= len(PROMPT)) - sum(
            c.start for c in chunks if c.end <= len(PROMPT)
        )
        return execute(chunks)

    engine.runner.execute = counting  # type: ignore[method-assign]
    run_all(engine)
    assert computed == len(PROMPT) + 3
    assert [c.output for c in choices] == [expected_reply(PROMPT, 6, 3)] * 4


def test_choices_are_counted_as_one_request() -> None:
    engine = make_engine(50)
    engine.log.start()
    first = submit(engine, 4)
    run_all(engine)
    assert engine.diversity.value == 1.0
    assert [r.split.hit for r in first if r.split] == [0, 0, 0, 0]
    assert len(engine.log.take()) == 1
    again = submit(engine, 2)
    run_all(engine)
    assert engine.diversity.value == 0.5
    assert again[1].split == again[0].split
    node = engine.tree.nodes[first[0].hashes[0]]
    assert node.num_uses == 2


def test_a_choice_goes_on_without_its_leader() -> None:
    engine = make_engine(50, max_batch_tokens=5)
    leader, other = submit(engine, 2)
    engine.step()
    engine.abort(leader)
    run_all(engine)
    assert other.output == expected_reply(PROMPT, 6, 3)


def test_choices_that_do_not_fit_together_take_turns() -> None:
    engine = make_engine(7)
    choices = submit(engine, 4, max_tokens=15)
    run_all(engine)
    assert [c.output for c in choices] == [expected_reply(PROMPT, 15, 3)] * 4


def test_seeds_differ_by_choice() -> None:
    engine = make_engine(7)
    leader = make_request(engine, PROMPT)
    leader.params = type(leader.params)(max_tokens=3, temperature=1.0, seed=10)
    assert [leader.another_choice(i).params.seed for i in (1, 2)] == [11, 12]
