"""Twelve further worlds, written and seeded after the forecast and its intervals were settled.

They judge and choose nothing. All differ from `worlds.py` in kind or in law: documents by kind of
use, tenants in blocks of time, days with two rushes, overlays of unlike traffic, topics that fade,
people who come back, requests of one turn and of dozens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from world_builder import (
    WINDOW_S,
    Chain,
    Recorder,
    Zipf,
    lengths,
    pareto_length,
    poisson_times,
)

from loadkit.core.trace import Trace

World = Callable[[np.random.Generator, float], Recorder]


def make_fresh_world(name: str, seed: int, scale: float = 1.0) -> Trace:
    """One draw of a world; `scale` multiplies its sessions."""
    return FRESH[name](np.random.default_rng([seed, 77, *name.encode()]), scale).trace()


def helpdesk(random: np.random.Generator, scale: float) -> Recorder:
    """Tenants that are each open for a quarter of the hour, with manuals that Zipf picks from."""
    world, tenants = Recorder(), int(90 * scale) + 5
    for tenant in range(tenants):
        opens = random.random() * WINDOW_S * 0.75
        sessions = int(random.lognormal(3.3, 1.0))
        manual = Zipf(30 + tenant % 40, 0.8)
        for start in opens + random.random(sessions) * WINDOW_S / 4:
            page = manual.draw(random)
            chain: Chain = [world.segment(("tenant", tenant), 6 + tenant % 30)]
            chain.append(world.segment(("page", tenant, page), 4 + (7 * page) % 33))
            turns = int(random.geometric(0.45))
            world.talk(random, float(start), chain, turns=turns, think_s=45.0)
    return world


def _two_rushes(random: np.random.Generator, count: int) -> Iterator[float]:
    """Starts in a morning and an afternoon rush, and few between."""
    for _ in range(count):
        pick = random.random()
        middle, width = (0.25, 0.06) if pick < 0.4 else (0.7, 0.1) if pick < 0.8 else (0.5, 0.5)
        yield float((random.normal(middle, width) % 1) * WINDOW_S)


def office(random: np.random.Generator, scale: float) -> Recorder:
    """Colleagues in two rushes, each with a persona of their own and a few common files."""
    world, people, files = Recorder(), Zipf(900, 0.5), Zipf(250, 1.15)
    sizes = lengths(91, 8, 90, 250)
    for start in _two_rushes(random, int(4800 * scale)):
        chain: Chain = [world.segment("office", 9)]
        if random.random() < 0.55:
            file = files.draw(random)
            chain.append(world.segment(("file", file), sizes[file]))
        else:
            chain.append(world.segment(("persona", people.draw(random)), 5))
        turns = int(random.geometric(0.3))
        world.talk(random, start, chain, turns=turns, think_s=55.0)
    return world


def code_review(random: np.random.Generator, scale: float) -> Recorder:
    """Changes of Zipf repositories; a handful of bots look at each within two minutes."""
    world, repositories, target = Recorder(), Zipf(120, 0.95), int(3600 * scale)
    sizes = lengths(92, 15, 160, 120)
    while world.num_sessions < target:
        repository, arrives = repositories.draw(random), random.random() * WINDOW_S
        diff = pareto_length(random, 1.1, 6, 120)
        base: Chain = [world.segment(("repository", repository), sizes[repository])]
        base.append(world.segment(("diff", world.num_sessions), diff))
        for _ in range(int(random.integers(1, 7))):
            begin = arrives + random.exponential(50.0)
            turns = 1 + int(random.geometric(0.25))
            world.talk(random, begin, base, turns=turns, think_s=9.0, grows=1.5)
    return world


def digests(random: np.random.Generator, scale: float) -> Recorder:
    """Every text is summed up three to five times, for as many audiences, whenever convenient."""
    world, texts = Recorder(), int(1300 * scale)
    for text in range(texts):
        size = pareto_length(random, 1.4, 22, 180)
        for _ in range(int(random.integers(3, 6))):
            chain: Chain = [world.segment("digest", 4), world.segment(("text", text), size)]
            world.talk(random, random.random() * WINDOW_S, chain, turns=1, think_s=1.0, grows=1)
    return world


def grading(random: np.random.Generator, scale: float) -> Recorder:
    """Rubrics by Zipf, essays that nobody else has, second opinions for one in eight."""
    world, rubrics = Recorder(), Zipf(45, 0.8)
    for start in poisson_times(random, int(5200 * scale)):
        rubric = rubrics.draw(random)
        chain: Chain = [world.segment(("rubric", rubric), 10 + (11 * rubric) % 50)]
        chain.append(world.segment(("essay", world.num_sessions), pareto_length(random, 2, 12, 60)))
        world.send(float(start), world.new_session(), chain)
        if random.random() < 0.12:
            world.send(float(start) + random.exponential(600.0), world.new_session(), chain)
    return world


def heavy_tenants(random: np.random.Generator, scale: float) -> Recorder:
    """Tenants of Pareto size all hour long; each has few prompts and many notes of its users."""
    world, target = Recorder(), int(4500 * scale)
    tenant = 0
    while world.num_sessions < target:
        tenant += 1
        size = int(min(2 + random.pareto(0.9) * 6, 500))
        prompts, users = Zipf(1 + size // 15, 1.0), Zipf(2 + size // 3, 0.7)
        for start in random.random(size) * WINDOW_S:
            prompt = prompts.draw(random)
            chain: Chain = [world.segment(("tenant", tenant, prompt), 8 + (tenant * 7) % 45)]
            chain.append(world.segment(("notes", tenant, prompt, users.draw(random)), 5))
            turns = int(random.geometric(0.4))
            world.talk(random, float(start), chain, turns=turns, think_s=60.0)
    return world


def translations(random: np.random.Generator, scale: float) -> Recorder:
    """Single requests after one of sixteen few-shot prompts; strings repeat like words do."""
    world, pairs, strings = Recorder(), Zipf(16, 0.6), Zipf(6000, 0.85)
    for start in poisson_times(random, int(9000 * scale)):
        pair, string = pairs.draw(random), strings.draw(random)
        chain: Chain = [world.segment(("pair", pair), 7 + 3 * pair)]
        chain.append(world.segment(("string", pair, string), 1 + string % 5))
        world.send(float(start), world.new_session(), chain)
    return world


def fading_topics(random: np.random.Generator, scale: float) -> Recorder:
    """A topic appears every half minute; interest in each fades within ten, at its own rate."""
    world, topics = Recorder(), int(110 * scale) + 10
    for topic in range(topics):
        appears = random.random() * WINDOW_S
        article = pareto_length(random, 1.3, 25, 140)
        fades = float(random.lognormal(np.log(400.0), 0.7))
        for offset in random.exponential(fades, int(min(2 + random.pareto(1.2) * 12, 300))):
            chain: Chain = [world.segment("news", 7), world.segment(("topic", topic), article)]
            turns = int(random.geometric(0.5))
            world.talk(random, appears + offset, chain, turns=turns, think_s=35.0, grows=2)
    return world


def returning_people(random: np.random.Generator, scale: float) -> Recorder:
    """People with a memory of their own open new sessions over and over."""
    world, people = Recorder(), int(700 * scale)
    for person in range(people):
        memory = pareto_length(random, 1.6, 12, 60)
        visits = int(random.geometric(0.17))
        for start in random.random(visits) * WINDOW_S:
            chain: Chain = [world.segment("assistant", 11)]
            chain.append(world.segment(("memory", person), memory))
            turns = int(random.geometric(0.4))
            world.talk(random, float(start), chain, turns=turns, think_s=30.0, grows=3)
    return world


def mixed_fleet(random: np.random.Generator, scale: float) -> Recorder:
    """An overlay: long agent loops, a chat product in two rushes, and a nightly batch."""
    world, tools = Recorder(), Zipf(12, 0.9)
    for start in poisson_times(random, int(350 * scale)):
        kit = tools.draw(random)
        chain: Chain = [world.segment(("kit", kit), 40 + 9 * kit)]
        steps = 4 + int(random.geometric(0.07))
        world.talk(random, float(start), chain, turns=steps, think_s=7.0, grows=2)
    for start in _two_rushes(random, int(2600 * scale)):
        chain = [world.segment("product", 8)]
        world.talk(random, start, chain, turns=int(random.geometric(0.3)), think_s=70.0)
    begins = random.random() * WINDOW_S / 2
    for row in range(int(1200 * scale)):
        chain = [world.segment("batch", 20), world.segment(("row", row), 2 + row % 7)]
        world.send(begins + row * 0.9, world.new_session(), chain)
    return world


def wizards(random: np.random.Generator, scale: float) -> Recorder:
    """Forms with steps: answers come from short lists, so paths repeat in part."""
    world, forms = Recorder(), Zipf(25, 1.0)
    for start in poisson_times(random, int(4200 * scale)):
        form, time_s, path = forms.draw(random), float(start), ()
        chain: Chain = [world.segment(("form", form), 10 + form)]
        who = world.new_session()
        for step in range(3 + form % 5):
            path = (*path, Zipf(8 + 4 * step, 1.2).draw(random))
            chain.append(world.segment(("answer", form, path), 2 + path[-1] % 3))
            world.send(time_s, who, chain)
            time_s += random.exponential(25.0)
    return world


def contracts(random: np.random.Generator, scale: float) -> Recorder:
    """Long contracts out of templates: the same first half for all of a kind, then their own; a
    lawyer and an assistant ask about each."""
    world, kinds = Recorder(), Zipf(35, 0.75)
    sizes = lengths(93, 20, 120, 35)
    for contract in range(int(1500 * scale)):
        kind, first = kinds.draw(random), random.random() * WINDOW_S
        own = pareto_length(random, 1.5, 20, 120)
        for _ in range(int(random.geometric(0.45))):
            begin = first + random.exponential(900.0)
            chain: Chain = [world.segment("legal", 5), world.segment(("kind", kind), sizes[kind])]
            chain.append(world.segment(("contract", kind, contract), own))
            turns = int(random.geometric(0.35))
            world.talk(random, begin, chain, turns=turns, think_s=80.0, grows=2)
    return world


FRESH: dict[str, World] = {
    world.__name__: world
    for world in (
        helpdesk, office, code_review, digests, grading, heavy_tenants, translations,
        fading_topics, returning_people, mixed_fleet, wizards, contracts,
    )
}  # fmt: skip
