"""Anything may fail at any moment: pages are never lost, references never negative, and whoever
is answered is answered right. Driven by hypothesis, with a stub model that checks every read."""

from __future__ import annotations

from typing import Any

from engine_builders import (
    DictSlab,
    check_pages,
    expected_reply,
    make_engine,
    make_lower,
    make_request,
    run_all,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reference_server.policies import POLICIES
from reference_server.request import Request

TOKENS = st.integers(0, 1)


class FaultyEngine(RuleBasedStateMachine):
    """Blocks of 3, a pool of 9, small tiers; three tenants, drafting on or off."""

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        tiers=st.sampled_from([(), (4,), (3, 4)]),
        quota=st.sampled_from([None, 8]),
        draft=st.sampled_from([0, 2]),
    )
    def start(self, policy: str, tiers: tuple[int, ...], quota: int | None, draft: int) -> None:
        self.engine = make_engine(
            9,
            block_size=3,
            vocabulary=2,
            lower=make_lower(*tiers) if tiers else None,
            policy=policy,
            tenant_quota_blocks=quota,
            draft_tokens=draft,
        )
        self.runner: Any = self.engine.runner
        self.slabs = [t.slab for t in self.engine.tree.lower.tiers if isinstance(t.slab, DictSlab)]
        self.requests: list[Request] = []
        self.finished: list[Request] = []

    @rule(
        prompt=st.lists(TOKENS, min_size=1, max_size=14),
        max_tokens=st.integers(1, 8),
        tenant=st.sampled_from([b"x", b"y"]),
        hook=st.sampled_from(["fine", "fine", "fine", "raises", "stops", "finish raises"]),
        choices=st.integers(1, 2),
    )
    def submit(
        self, prompt: list[int], max_tokens: int, tenant: bytes, hook: str, choices: int
    ) -> None:
        request = make_request(self.engine, prompt, max_tokens, session="s", tenant=tenant)
        request.observe = {"raises": self._raise, "stops": self._stop}.get(hook, request.observe)
        request.on_finish = self._bad_finish if hook == "finish raises" else self.finished.append
        made = [request]
        for index in range(1, choices):
            made.append(request.another_choice(index, on_finish=self.finished.append))
        for one in made:
            self.engine.submit(one)
        self.requests += made

    def _raise(self, token: int, reason: str | None) -> bool:
        raise KeyError("a caller's bug")

    def _stop(self, token: int, reason: str | None) -> bool:
        return True

    def _bad_finish(self, request: Request) -> None:
        self.finished.append(request)
        raise KeyError("a caller's bug")

    @rule(num=st.integers(1, 5))
    def step(self, num: int) -> None:
        for _ in range(num):
            self.engine.step()

    @rule(which=st.integers(0, 100))
    def abort(self, which: int) -> None:
        if self.requests:
            self.engine.abort(self.requests[which % len(self.requests)])

    @rule(which=st.integers(0, 100))
    def break_model_for(self, which: int) -> None:
        if self.requests:
            self.runner.fail_for.add(self.requests[which % len(self.requests)])

    @rule(which=st.integers(0, 100), slot=st.integers(0, 4))
    def damage_a_slot(self, which: int, slot: int) -> None:
        if self.slabs:
            self.slabs[which % len(self.slabs)].damaged.add(slot)

    @rule(refuses=st.booleans())
    def fill_the_disk(self, refuses: bool) -> None:
        for slab in self.slabs:
            slab.refuses = lambda: refuses

    @rule(name=st.sampled_from(["copy", "read", "write"]), num=st.integers(1, 3))
    def break_the_device_while_copying(self, name: str, num: int) -> None:
        def broken(*args: Any) -> None:
            raise RuntimeError("the device says no")

        setattr(self.runner, name, broken)
        for _ in range(num):
            self.engine.step()
        delattr(self.runner, name)

    @rule()
    def reset(self) -> None:
        idle = not self.engine.scheduler.running
        assert self.engine._reset() == idle
        assert not idle or self.engine.tree.pool.num_free == self.engine.tree.pool.num_pages - 1

    @invariant()
    def pages_are_kept(self) -> None:
        if hasattr(self, "engine"):
            check_pages(self.engine)
            tree = self.engine.tree
            assert (
                tree.pool.num_counted
                == tree.pool.num_resident + tree.pool.num_dead + tree.pool.num_reserved
            )
            assert tree.pool.num_used <= tree.pool.num_blocks

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        run_all(self.engine)
        tree = self.engine.tree
        assert tree.pool.num_used == 0
        assert all(node.ref == 0 for node in tree.nodes.values())
        assert (
            tree.pool.num_free + tree.pool.num_resident + tree.pool.num_dead
            == tree.pool.num_pages - 1
        )
        assert sorted(map(id, self.finished)) == sorted(map(id, self.requests))
        for request in self.requests:
            prompt = request.tokens[: request.num_prompt]
            assert request.output == expected_reply(prompt, request.num_output, 2)
            assert request.finish_reason is not None
        assert self.engine._reset()


TestFaultyEngine = FaultyEngine.TestCase
TestFaultyEngine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
