"""Preemption, tiers that fail, drafts, choices, quotas, aborts and faults in one random schedule."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from engine_builders import check_pages, expected_reply, make_engine, make_lower
from tiny_model import make_model, make_tokenizer

from reference_server.engine import Engine, EngineSettings
from reference_server.generation import Choice, Delta
from reference_server.model_runner import TransformersRunner
from reference_server.policies import POLICIES
from reference_server.request import Request, SamplingParams
from reference_server.tiers.build import make_tiers


def random_engine(rng: random.Random) -> Engine:
    tiers = rng.choice([(), (1,), (3,), (2, 4), (8, 12)])
    lower = make_lower(*tiers) if tiers else None
    for tier in lower.tiers if lower else ():
        tier.slab.refuses = lambda: rng.random() < 0.03  # type: ignore[attr-defined]
    num_blocks, num_seqs = rng.randint(6, 40), rng.randint(1, 5)
    return make_engine(
        num_blocks,
        max_batch_tokens=rng.randint(num_seqs, 30),
        max_num_seqs=num_seqs,
        vocabulary=rng.choice([2, 3, 5]),
        lower=lower,
        policy=rng.choice([*POLICIES]),
        draft_tokens=rng.choice([0, 3, 9]),
        tenant_quota_blocks=rng.choice([None, rng.randint(4, num_blocks)]),
    )


class Traffic:
    """Random requests with up to 4 choices, some of which end early or are made to fail."""

    def __init__(self, rng: random.Random, engine: Engine):
        self.rng, self.engine = rng, engine
        vocabulary = range(engine.runner.vocab_size)
        self.vocabulary = [*vocabulary]
        self.stems = [rng.choices(self.vocabulary, k=rng.randint(1, 30)) for _ in range(4)]
        self.requests: list[Request] = []
        self.told: dict[Request, list[int]] = {}
        self.ends: dict[Request, int] = {}

    def send(self) -> None:
        rng = self.rng
        known = [request.tokens for request in self.requests[-5:]]
        stem = rng.choice([*self.stems, *known])
        prompt = stem[: rng.randint(1, len(stem))] + rng.choices(
            self.vocabulary, k=rng.randint(0, 6)
        )
        room = self.engine.max_new_tokens(len(prompt))
        if room < 1:
            return
        params = SamplingParams(
            max_tokens=rng.randint(1, min(room, 30)),
            stop_ids=frozenset(rng.sample(self.vocabulary, 1) if rng.random() < 0.2 else ()),
            num_logprobs=rng.choice([None, 0]),
        )
        leader = Request(
            prompt,
            4,
            rng.choice([b"root", b"other"]),
            params,
            session=rng.choice([None, "a", "b"]),
            on_finish=self._end,
            tenant=rng.choice([b"", b"one", b"two"]),
        )
        num = rng.choice([1, 1, 1, 2, 4])
        choices = [leader.another_choice(i, on_finish=self._end) for i in range(1, num)]
        for request in (leader, *choices):
            self._watch(request, stop_after=rng.choice([999, 999, rng.randint(1, 30)]))
        self.engine.submit(leader, *choices)
        if rng.random() < 0.05:
            self.engine.runner.fail_for.add(leader)  # type: ignore[attr-defined]

    def _watch(self, request: Request, stop_after: int) -> None:
        told = self.told[request] = []
        request.observe = lambda token, reason: told.append(token) or len(told) >= stop_after
        self.requests.append(request)

    def _end(self, request: Request) -> None:
        self.ends[request] = self.ends.get(request, 0) + 1

    def disturb(self) -> None:
        if self.requests and self.rng.random() < 0.1:
            self.engine.abort(self.rng.choice(self.requests))
        for tier in self.engine.tree.lower.tiers:
            if self.rng.random() < 0.1:
                slot = self.rng.randrange(tier.slab.num_slots)
                tier.slab.damaged.add(slot)  # type: ignore[attr-defined]
        if self.rng.random() < 0.02:
            self.engine._reset()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_replies_are_right_and_every_page_comes_back(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(seed)
    engine = random_engine(rng)
    traffic = Traffic(rng, engine)
    for _ in range(100):
        if rng.random() < 0.35:
            traffic.send()
        traffic.disturb()
        if rng.random() < 0.7:
            engine.step()
            check_pages(engine)
    while engine.step():
        check_pages(engine)
    assert not engine.scheduler.has_work, "requests that wait for nothing"
    assert (engine.tree.pool.num_used, engine.num_waiting, engine.inbox.num_tokens) == (0, 0, 0)
    for request in traffic.requests:
        reply = expected_reply(
            request.tokens[: request.num_prompt], request.num_output, engine.runner.vocab_size
        )
        assert traffic.ends[request] == 1
        assert request.output == traffic.told[request] == reply
        assert len(request.samples) == request.num_output or request.params.num_logprobs is None
        if request.finish_reason == "length":
            assert request.num_output == request.params.max_tokens


# -- the same with a real model, down to the text


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@torch.no_grad()
def logits_of(model: Any, tokens: list[int]) -> torch.Tensor:
    made: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return made


def plain_reply(model: Any, prompt: list[int], params: SamplingParams) -> list[int]:
    """Greedy, by the model alone: banned ends, ends, and max_tokens."""
    tokens: list[int] = []
    while len(tokens) < params.max_tokens:
        logits = logits_of(model, prompt + tokens)
        if len(tokens) < params.min_tokens:
            logits[list(params.ending_ids)] = -torch.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] in params.ending_ids:
            break
    return tokens


def plain_text(decode: Any, tokens: list[int], ends: frozenset[int], stop: str) -> str:
    """All of the reply's text, cut before the stop string."""
    text: str = decode(tokens[:-1] if tokens[-1] in ends else tokens)
    return text.split(stop)[0]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_real_model_says_what_it_says_alone_token_by_token_and_in_text(
    seed: int, tokenizer: Any
) -> None:
    """A pool of 10 blocks of 8 for 3 requests at once, with tiers of 6 blocks and drafts."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    vocabulary = len(tokenizer)
    plain = make_model(vocabulary)
    settings = EngineSettings(8, 10, 24, max_num_seqs=3, host_blocks=6, draft_tokens=7)
    runner = TransformersRunner(make_model(vocabulary), num_pages=14, block_size=8)
    engine = Engine(runner, settings, lower=make_tiers(runner.pages, 6, 0, None, b""))
    stems = [rng.choices(range(2, vocabulary), k=30) for _ in range(2)]

    def decode(tokens: Any) -> str:
        made: str = tokenizer.decode(tokens, skip_special_tokens=True)
        return made

    served: list[tuple[Request, list[Delta], str]] = []
    for _ in range(16):
        prompt = rng.choice(stems)[: rng.choice([3, 16, 23, 30])]
        prompt = prompt + rng.choices(range(2, vocabulary), k=rng.choice([0, 0, 1, 4]))
        params = SamplingParams(
            max_tokens=rng.choice([1, 12, 30]),
            min_tokens=rng.choice([0, 5]),
            ignore_eos=rng.random() < 0.3,
            eos_ids=frozenset({1}),
            stop_ids=frozenset(rng.choices(range(vocabulary), k=3)),
            num_logprobs=2,
        )
        stop = rng.choice(["\0", "\0", "e", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
        said: list[Any] = []
        choice = Choice(0, decode, [stop], said.append)
        choice.request = Request(
            list(prompt), 8, b"root", params, observe=choice.observe, on_finish=choice.finish
        )
        engine.submit(choice.request)
        served.append((choice.request, said, stop))
        for _ in range(rng.choice([0, 1, 5])):
            engine.step()
    while engine.step():
        pass
    assert sum(r.num_preemptions + r.num_accepted + r.tier_tokens[1] for r, _, _ in served) > 3
    for request, said, stop in served:
        prompt = request.tokens[: request.num_prompt]
        reply = plain_reply(plain, prompt, request.params)
        assert request.output == reply[: request.num_output]
        text = "".join(delta.text for delta in said[:-1])
        assert text == plain_text(decode, reply, request.params.ending_ids, stop)
        assert said[-2].finish_reason == request.finish_reason
        if len(reply) > request.num_output:
            assert request.finish_reason == "stop"
        last = request.samples[-1]
        logits = logits_of(plain, request.tokens[:-1])
        assert last.logprob == pytest.approx(float(logits.log_softmax(-1)[last.token]), abs=1e-3)
