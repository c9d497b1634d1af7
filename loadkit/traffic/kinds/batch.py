"""Batch evaluation: one suite of prompts under one instruction, sent several times."""

from __future__ import annotations

import msgspec

from loadkit.profiles import BatchTraffic
from loadkit.traffic.plan import SessionPlan
from loadkit.traffic.planning import Planned, Planning


def plan(traffic: BatchTraffic, count: int, planning: Planning) -> Planned:
    """`count` runs of the suite. Every run after the first is a wrap: all its prompts are replay,
    in sessions of their own, as those of an evaluation that is started again."""
    suite = _suite(traffic, planning)
    sessions = []
    for run in range(count):
        order = list(range(len(suite)))
        if traffic.order == "shuffled":
            planning.rng.shuffle(order)
        for number in order:
            name = f"{planning.label}-run{run + 1}-{number:05d}"
            sessions.append(msgspec.structs.replace(suite[number], session=name, repeats=count > 1))
    return Planned(sessions, wraps=count - 1)


def _suite(traffic: BatchTraffic, planning: Planning) -> list[SessionPlan]:
    writer = planning.writer(traffic.corpus)
    instruction = writer.text(
        "instruction", pieces=traffic.instruction_sentences, tokens=traffic.instruction_tokens
    )
    return [
        planning.single(
            number,
            (
                {"role": "system", "content": instruction},
                {
                    "role": "user",
                    "content": writer.fresh("item", traffic.item_sentences, traffic.item_tokens),
                },
            ),
            shared=1,
        )
        for number in range(traffic.suite)
    ]
