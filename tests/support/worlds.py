"""Synthetic production worlds with known laws, an hour each: the truth that forecasts are held to.

`DESIGN` are the kinds of world whose relatives were looked at while the method was designed, written
anew from their description and seeded anew. `REVISION` showed that copies of sessions were put too
near to each other, and were looked at while that was repaired. `UNSEEN` played no part in anything.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from world_builder import (
    WINDOW_S,
    Chain,
    Recorder,
    Zipf,
    diurnal_times,
    lengths,
    pareto_length,
    poisson_times,
)

from loadkit.core.trace import Trace

World = Callable[[np.random.Generator, float], Recorder]


def make_world(name: str, seed: int, scale: float = 1.0) -> Trace:
    """One draw of a world. `scale` multiplies its sessions: 1 is 2,000 to 10,000 of them."""
    return WORLDS[name](np.random.default_rng([seed, len(name), *name.encode()]), scale).trace()


def _chat(
    random: np.random.Generator,
    sessions: int,
    *,
    systems: int,
    system_zipf: float,
    system_blocks: tuple[int, int],
    documents: int,
    document_zipf: float,
    document_share: float,
    faq_share: float,
    turns: float,
    think_s: float,
) -> Recorder:
    """Sessions of a Zipf system prompt, a user profile, perhaps a Zipf document, and turns; some
    are questions out of a fixed list, asked once."""
    world, prompts = Recorder(), Zipf(systems, system_zipf)
    shelf, questions, users = Zipf(documents, document_zipf), Zipf(2000, 1.0), Zipf(100_000, 0.625)
    sizes = lengths(12345, *system_blocks, systems)
    pages = np.minimum(1 + np.random.default_rng(12346).pareto(1.3, documents) * 8, 200).astype(int)
    for start in poisson_times(random, sessions):
        system = prompts.draw(random)
        chain: Chain = [world.segment(("system", system), sizes[system])]
        if random.random() < faq_share:
            question = questions.draw(random)
            chain.append(world.segment(("faq", system, question), 1 + question % 3))
            world.send(float(start), world.new_session(), chain)
            continue
        if random.random() < document_share:
            document = shelf.draw(random)
            chain.append(world.segment(("doc", system, document), int(pages[document])))
        else:
            chain.append(world.segment(("user", system, users.draw(random)), 2))
        world.talk(random, float(start), chain, turns=random.geometric(1 / turns), think_s=think_s)
    return world


def flat(random: np.random.Generator, scale: float) -> Recorder:
    """Many system prompts and documents, none of them hot; short sessions, long thinking."""
    return _chat(
        random, int(9000 * scale), systems=3000, system_zipf=0.7, system_blocks=(2, 15),
        documents=5000, document_zipf=0.6, document_share=0.6, faq_share=0.1, turns=2.0,
        think_s=200.0,
    )  # fmt: skip


def steep(random: np.random.Generator, scale: float) -> Recorder:
    """Few hot system prompts, long sessions."""
    return _chat(
        random, int(4000 * scale), systems=50, system_zipf=1.6, system_blocks=(10, 60),
        documents=50_000, document_zipf=1.1, document_share=0.2, faq_share=0.02, turns=8.0,
        think_s=30.0,
    )  # fmt: skip


def burst(random: np.random.Generator, scale: float) -> Recorder:
    """Documents that live in bursts of heavy-tailed size, minutes long."""
    world, target = Recorder(), int(3500 * scale)
    starts = iter(diurnal_times(random, target, 0.8)[random.permutation(target)])
    while world.num_sessions < target:
        system = int(random.choice(3, p=[0.6, 0.3, 0.1]))
        chain: Chain = [world.segment(("system", system), (12, 4, 30)[system])]
        start, followers = float(next(starts)), [0.0]
        if random.random() < 0.35:
            followers = list(random.exponential(240.0, pareto_length(random, 1.1, 2, 60)))
            pages = pareto_length(random, 1.2, 25, 250)
            chain.append(world.segment(("doc", system, world.num_sessions), pages))
        for offset in followers:
            turns = int(random.geometric(0.4))
            world.talk(random, start + offset, chain, turns=turns, think_s=50.0, grows=3)
    return world


def agents(random: np.random.Generator, scale: float) -> Recorder:
    """Agent loops with long tool prefixes; tasks are tried again, sub-agents fork the context."""
    world, tools, target = Recorder(), Zipf(40, 1.2), int(2500 * scale)
    sizes = lengths(40, 40, 120, 40)
    while world.num_sessions < target:
        kind, start = tools.draw(random), random.random() * WINDOW_S
        base: Chain = [world.segment(("tools", kind), sizes[kind])]
        base.append(
            world.segment(("task", kind, world.num_sessions), pareto_length(random, 1.5, 4, 40))
        )
        tries = 1 + (random.random() < 0.3) * int(random.geometric(0.35))
        for attempt in range(tries):
            begin = start + attempt * random.exponential(120.0)
            steps = 3 + int(random.geometric(0.12))
            context = world.talk(random, begin, base, turns=steps, think_s=8.0, grows=2)
            if random.random() < 0.25:
                for _ in range(int(random.integers(2, 6))):
                    _fork(world, random, begin + 30, context[:4])
    return world


def _fork(world: Recorder, random: np.random.Generator, start: float, context: Chain) -> None:
    turns = int(random.geometric(0.3))
    world.talk(random, start + random.exponential(5.0), context, turns=turns, think_s=6.0, grows=2)


def library(random: np.random.Generator, scale: float) -> Recorder:
    """Questions about documents: one prompt each, whole document first, popularity Zipf."""
    world, shelf = Recorder(), Zipf(3000, 0.9)
    pages = lengths(1, 5, 120, 3000)
    for start in poisson_times(random, int(7000 * scale)):
        document = shelf.draw(random)
        chain: Chain = [world.segment("system", 6)]
        chain.append(world.segment(("doc", document), pages[document]))
        turns = int(random.geometric(0.7))
        world.talk(random, float(start), chain, turns=turns, think_s=40.0, grows=1)
    return world


def tenant_blocks(random: np.random.Generator, scale: float) -> Recorder:
    """Tenants of heavy-tailed size, each at work in one stretch of 5 to 25 minutes."""
    world, target = Recorder(), int(4000 * scale)
    while world.num_sessions < target:
        tenant, size = world.num_sessions, pareto_length(random, 1.0, 6, 150)
        start, stretch = random.random() * WINDOW_S, random.uniform(300, 1500)
        own, shelf = (
            world.segment(("tenant", tenant), pareto_length(random, 1.5, 10, 60)),
            Zipf(20, 1),
        )
        for offset in random.random(size) * stretch:
            document = shelf.draw(random)
            chain = [own, world.segment(("doc", tenant, document), 3 + 7 * document)]
            turns = int(random.geometric(0.4))
            world.talk(random, start + offset, chain, turns=turns, think_s=45.0)
    return world


def day_and_night(random: np.random.Generator, scale: float) -> Recorder:
    """Chat whose arrivals swing by nine tenths, two apps, users who come back."""
    world, users = Recorder(), Zipf(3000, 0.8)
    for start in diurnal_times(random, int(5000 * scale), 0.9):
        app, user = int(random.random() < 0.3), users.draw(random)
        chain: Chain = [world.segment(("app", app), (25, 8)[app])]
        chain.append(world.segment(("memory", app, user), 2 + user % 9))
        turns = int(random.geometric(0.25))
        world.talk(random, float(start), chain, turns=turns, think_s=60.0)
    return world


def overlay(random: np.random.Generator, scale: float) -> Recorder:
    """Two products on one cache: coding agents and single questions over a hot FAQ."""
    world, questions = agents(random, 0.5 * scale), Zipf(800, 1.1)
    for start in poisson_times(random, int(5000 * scale)):
        asked = questions.draw(random)
        chain: Chain = [world.segment("desk", 4), world.segment(("question", asked), 1 + asked % 4)]
        if random.random() < 0.6:
            world.send(float(start), world.new_session(), chain)
        else:
            world.talk(random, float(start), chain, turns=2, think_s=30.0, grows=1)
    return world


def deploys(random: np.random.Generator, scale: float) -> Recorder:
    """Code assistants on repositories whose state changes every few minutes and is then gone."""
    world, repositories = Recorder(), Zipf(150, 0.8)
    period = np.random.default_rng(7).uniform(200, 1500, 150)
    for start in poisson_times(random, int(4000 * scale)):
        repository = repositories.draw(random)
        version = int(start // period[repository])
        chain: Chain = [world.segment("rules", 20), world.segment(("readme", repository), 10)]
        chain.append(world.segment(("files", repository, version), 15 + 3 * (repository % 30)))
        turns = int(random.geometric(0.2))
        world.talk(random, float(start), chain, turns=turns, think_s=25.0)
    return world


def top_passages(random: np.random.Generator, scale: float) -> Recorder:
    """RAG: three passages by Zipf in the order found, so that only equal beginnings are shared."""
    world, passages = Recorder(), Zipf(400, 1.1)
    for start in poisson_times(random, int(7000 * scale)):
        found = tuple(passages.draw(random) for _ in range(3))
        chain: Chain = [world.segment("system", 8)]
        chain += [world.segment(("passages", found[: i + 1]), 4 + found[i] % 5) for i in range(3)]
        turns = int(random.geometric(0.6))
        world.talk(random, float(start), chain, turns=turns, think_s=60.0, grows=1)
    return world


def org_tree(random: np.random.Generator, scale: float) -> Recorder:
    """A deep tree: company, app, role, user, each with text of its own and popularity by preference:
    a new branch opens the rarer the more a node has seen."""
    world = Recorder()
    seen: dict[tuple[int, ...], list[int]] = {}
    for start in poisson_times(random, int(5000 * scale)):
        path: tuple[int, ...] = ()
        chain: Chain = [world.segment("root", 3)]
        for strength in (4.0, 1.0, 2.0, 6.0):
            branches = seen.setdefault(path, [])
            fresh = random.random() < (strength + 0.4 * len(set(branches))) / (
                strength + len(branches)
            )
            branch = len(set(branches)) if fresh else branches[int(random.integers(len(branches)))]
            branches.append(branch)
            path = (*path, branch)
            chain.append(world.segment(("node", path), 3 + 5 * (branch % 7)))
        turns = int(random.geometric(0.5))
        world.talk(random, float(start), chain, turns=turns, think_s=60.0)
    return world


def flash_crowd(random: np.random.Generator, scale: float) -> Recorder:
    """Even chat, and four news stories that hundreds ask about within minutes."""
    world, count = Recorder(), int(4000 * scale)
    for start in poisson_times(random, count):
        chain: Chain = [world.segment("system", 10)]
        turns = int(random.geometric(0.35))
        world.talk(random, float(start), chain, turns=turns, think_s=50.0)
    for story in range(4):
        breaks = random.random() * WINDOW_S * 0.8
        for offset in random.exponential(150.0, count // 8):
            chain = [world.segment("system", 10), world.segment(("story", story), 60 + 40 * story)]
            world.talk(random, breaks + offset, chain, turns=2, think_s=40.0, grows=1)
    return world


def timetable(random: np.random.Generator, scale: float) -> Recorder:
    """Jobs that send the same prompts every few minutes, beside people who never repeat."""
    world, jobs = Recorder(), int(250 * scale)
    for job in range(jobs):
        period = float(random.choice([120.0, 300.0, 900.0, 1800.0]))
        chain: Chain = [
            world.segment(("job", job % 7), 15),
            world.segment(("work", job % 7, job), 12),
        ]
        for start in np.arange(random.random() * period, WINDOW_S, period):
            world.send(float(start), world.new_session(), chain)
    for start in poisson_times(random, int(3000 * scale)):
        chain = [world.segment("people", 5)]
        turns = int(random.geometric(0.3))
        world.talk(random, float(start), chain, turns=turns, think_s=70.0)
    return world


def strangers(random: np.random.Generator, scale: float) -> Recorder:
    """Chat with a short common prompt and nothing else in common; long histories."""
    world = Recorder()
    for start in poisson_times(random, int(4000 * scale)):
        opening = world.segment(
            ("history", world.num_sessions), pareto_length(random, 1.2, 20, 300)
        )
        chain: Chain = [world.segment("system", 2), opening]
        turns = int(random.geometric(0.2))
        world.talk(random, float(start), chain, turns=turns, think_s=80.0)
    return world


def menus(random: np.random.Generator, scale: float) -> Recorder:
    """Guided dialogues: people walk down trees of fixed questions and answers, then type freely."""
    world, trees = Recorder(), Zipf(60, 0.9)
    for start in poisson_times(random, int(6000 * scale)):
        tree, choice = trees.draw(random), Zipf(5, 0.7)
        chain: Chain = [world.segment(("menu", tree), 8)]
        who, time_s, path = world.new_session(), float(start), (tree,)
        for _ in range(int(random.integers(1, 6))):
            path = (*path, choice.draw(random))
            chain.append(world.segment(("step", path), 1 + path[-1]))
            world.send(time_s, who, chain)
            time_s += random.exponential(20.0)
        if random.random() < 0.5:
            world.talk(random, time_s, chain, turns=2, think_s=30.0, grows=2, session=who)
    return world


def classroom(random: np.random.Generator, scale: float) -> Recorder:
    """Classes of 10 to 60 who open one exercise within minutes and then work on their own."""
    world, target = Recorder(), int(4000 * scale)
    while world.num_sessions < target:
        lesson, begins = world.num_sessions, random.random() * WINDOW_S
        exercise = pareto_length(random, 1.5, 30, 150)
        for offset in np.abs(random.normal(0, 180, int(random.integers(10, 60)))):
            chain: Chain = [
                world.segment("tutor", 12),
                world.segment(("exercise", lesson), exercise),
            ]
            turns = int(random.geometric(0.3))
            world.talk(random, begins + offset, chain, turns=turns, think_s=90.0, grows=2)
    return world


def shifts(random: np.random.Generator, scale: float) -> Recorder:
    """Two products that take over from one another in the middle of the window."""
    world = Recorder()
    for start in poisson_times(random, int(5000 * scale)):
        product = int(random.random() < 1 / (1 + np.exp(-(start - WINDOW_S / 2) / 300)))
        page = Zipf(200 + 600 * product, 1.0).draw(random)
        chain: Chain = [world.segment(("product", product), 6 + 20 * product)]
        chain.append(world.segment(("page", product, page), 4 + page % 20))
        turns = int(random.geometric(0.4))
        world.talk(random, float(start), chain, turns=turns, think_s=50.0)
    return world


def evaluations(random: np.random.Generator, scale: float) -> Recorder:
    """Benchmark runs, each through a list of prompts in its order, beside ordinary chat."""
    world, chats = Recorder(), int(2500 * scale)
    for _ in range(int(12 * scale) + 1):
        suite, start = int(random.integers(4)), random.random() * WINDOW_S
        for item in range(300):
            few_shot = world.segment(("shots", suite), 10 + 10 * suite)
            question = world.segment(("item", suite, item), 1 + item % 4)
            world.send(start + 2.0 * item, world.new_session(), [few_shot, question])
    for start in poisson_times(random, chats):
        chain: Chain = [world.segment("chat", 7)]
        turns = int(random.geometric(0.25))
        world.talk(random, float(start), chain, turns=turns, think_s=60.0)
    return world


def regions(random: np.random.Generator, scale: float) -> Recorder:
    """Customers in time zones: each has its rush, its prompt and its documents."""
    world, customers = Recorder(), Zipf(40, 0.7)
    for _ in range(int(5000 * scale)):
        customer = customers.draw(random)
        start = float(random.normal(WINDOW_S * ((customer * 0.37) % 1), 500) % WINDOW_S)
        document = Zipf(150, 0.9).draw(random)
        chain: Chain = [world.segment(("customer", customer), 5 + customer % 25)]
        chain.append(world.segment(("doc", customer, document), 3 + document % 40))
        turns = int(random.geometric(0.5))
        world.talk(random, start, chain, turns=turns, think_s=40.0)
    return world


def notebooks(random: np.random.Generator, scale: float) -> Recorder:
    """Long documents that small teams work on all the time, a session a visit."""
    world, teams = Recorder(), int(600 * scale)
    for team in range(teams):
        size = pareto_length(random, 1.3, 40, 300)
        own = world.segment(("team", team), 3)
        for start in random.random(1 + int(random.pareto(1.4) * 4) % 60) * WINDOW_S:
            chain: Chain = [world.segment("editor", 9), own, world.segment(("book", team), size)]
            turns = int(random.geometric(0.35))
            world.talk(random, float(start), chain, turns=turns, think_s=60.0, grows=2)
    return world


DESIGN: dict[str, World] = {"flat": flat, "steep": steep, "burst": burst, "agents": agents}
REVISION: dict[str, World] = {
    world.__name__: world
    for world in (
        library, tenant_blocks, day_and_night, overlay, deploys, top_passages, org_tree,
        flash_crowd, timetable, strangers,
    )
}  # fmt: skip
UNSEEN: dict[str, World] = {
    world.__name__: world for world in (menus, classroom, shifts, evaluations, regions, notebooks)
}
WORLDS: dict[str, World] = DESIGN | REVISION | UNSEEN
