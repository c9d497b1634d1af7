"""Replicas that end by themselves: started again, a few times."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from loadkit.core.errors import InputError
from reference_server.router.fleet import Replica
from reference_server.router.keeper import MAX_STARTS, STABLE_S, Keeper


class Flaky:
    """A process that lives for so many seconds of the clock each time; 0: it is never ready. After
    the last of them it stays."""

    def __init__(self, world: World, lives_s: Sequence[float]) -> None:
        self.world, self.lives_s = world, list(lives_s)
        self.ends_s: float | None = self.lives_s.pop(0)
        self.num_starts = 0

    def poll(self) -> int | None:
        return 9 if self.ends_s is not None and self.world.now_s >= self.ends_s else None

    def start(self) -> None:
        self.num_starts += 1
        self.ends_s = self.world.now_s + self.lives_s.pop(0) if self.lives_s else None

    def wait_ready(self) -> str:
        if self.poll() is not None:
            raise InputError("ended")
        return f"http://again/{self.num_starts}"

    def terminate(self) -> None:
        self.ends_s = self.world.now_s


class World:
    """Time passes where somebody sleeps, and ends after so many seconds."""

    def __init__(self, limit_s: float) -> None:
        self.now_s, self.limit_s = 0.0, limit_s
        self.pauses_s: list[float] = []

    async def sleep(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.pauses_s += [pause_s] if pause_s >= 1 else []
        if self.now_s > self.limit_s:
            raise TimeoutError
        await asyncio.sleep(0)


def kept(world: World, process: Flaky) -> tuple[Replica, list[int]]:
    """The replica, and the starts that were told, once the time is over or it was given up."""
    replica, told = Replica(0, "http://first"), []  # type: ignore[var-annotated]
    keeper = Keeper([process], [replica], told.append, world.sleep, lambda: world.now_s)
    try:
        asyncio.run(keeper.run())
    except TimeoutError:
        assert process.poll() is None
    return replica, told


def test_one_that_ended_has_another_address_then(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(limit_s=100)
    replica, told = kept(world, Flaky(world, [10]))
    assert (replica.url, told, world.pauses_s) == ("http://again/1", [0], [1.0])
    assert (
        "replica 0 ended with exit code 9; started again, 1 of 3 times" in capsys.readouterr().err
    )


def test_a_dead_one_has_no_address_and_nothing_waits_for_it() -> None:
    """Another program may listen there by now: it must get no prompt and no key."""

    async def scenario() -> tuple[str, bool, int]:
        world = World(limit_s=10)
        replica = Replica(0, "http://first")
        waiting = asyncio.create_task(asyncio.Event().wait())
        replica.waiting.add(waiting)
        keeper = Keeper([Flaky(world, [10])], [replica], is_stopping=lambda: True)
        keeper._clock, keeper._sleep = (lambda: world.now_s), world.sleep
        await keeper.run()
        return replica.url, replica.is_up, waiting.cancelling()

    assert asyncio.run(scenario()) == ("", False, 1)


def test_pauses_double_and_one_that_dies_again_and_again_stays_down(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twice it is not even ready."""
    world = World(limit_s=100)
    process = Flaky(world, [1, 0, 2, 0, 1])
    kept(world, process)
    assert (process.num_starts, world.pauses_s) == (MAX_STARTS, [1.0, 2.0, 4.0])
    assert process.poll() == 9
    assert "it stays down, having ended 4 times" in capsys.readouterr().err


def test_who_ran_long_is_forgiven() -> None:
    world = World(limit_s=10 * STABLE_S)
    process = Flaky(world, [STABLE_S + 1] * 6)
    kept(world, process)
    assert process.num_starts == 6
    assert world.pauses_s == [1.0] * 6


def test_one_that_cannot_be_started_has_ended_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    """The machine may have memory or file handles again a moment later."""
    world = World(limit_s=100)

    class Refused(Flaky):
        def start(self) -> None:
            if len(world.pauses_s) < 2:
                raise OSError(12, "Cannot allocate memory")
            super().start()

    replica, told = kept(world, Refused(world, [1]))
    assert (replica.url, told, world.pauses_s) == ("http://again/1", [0, 0], [1.0, 2.0])
    assert "replica 0 cannot be started: [Errno 12] Cannot allocate" in capsys.readouterr().err


@pytest.mark.parametrize("drains_at_s", [0, 10.5])
def test_what_ends_while_the_router_drains_is_not_started_again(
    drains_at_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal to the whole group ends it too, at once or while the keeper pauses."""
    world = World(limit_s=100)
    process, replica, told = Flaky(world, [10]), Replica(0, "http://first"), []  # type: ignore[var-annotated]
    keeper = Keeper(
        [process],
        [replica],
        told.append,
        world.sleep,
        lambda: world.now_s,
        is_stopping=lambda: world.now_s >= drains_at_s,
    )
    asyncio.run(keeper.run())
    assert (process.num_starts, told) == (0, [])
    assert ("started again" in capsys.readouterr().err) == (drains_at_s > 10)


def test_what_is_being_started_ends_with_the_router() -> None:
    """Its thread would else wait for a model to be loaded."""

    async def scenario() -> bool:
        ended, waiting = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        class Slow(Flaky):
            def wait_ready(self) -> str:
                loop.call_soon_threadsafe(waiting.set)
                asyncio.run_coroutine_threadsafe(ended.wait(), loop).result()
                raise InputError("ended")

            def terminate(self) -> None:
                ended.set()

        world = World(limit_s=100)
        keeper = Keeper([Slow(world, [1])], [Replica(0, "")], sleep=world.sleep)
        keeper._clock = lambda: world.now_s
        keeping = asyncio.create_task(keeper.run())
        await waiting.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        return ended.is_set()

    assert asyncio.run(scenario())
