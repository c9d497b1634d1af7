"""Conversations: a shared system prompt, then message after message of one person."""

from __future__ import annotations

from loadkit.profiles import ConversationTraffic
from loadkit.traffic.draw import draw, draw_int, zipf_rank
from loadkit.traffic.plan import Message, SessionPlan, Turn
from loadkit.traffic.planning import Planned, Planning
from loadkit.traffic.sharing import system_prompts
from loadkit.traffic.writing import Writer


def plan(traffic: ConversationTraffic, count: int, planning: Planning) -> Planned:
    """`count` conversations, append-only."""
    rng, writer = planning.rng, planning.writer(traffic.corpus)
    shared = traffic.system_prompts
    systems = system_prompts(writer, shared)
    repeated = traffic.repeat_questions if traffic.repeat_share else 0
    common = writer.corpus.common_questions(repeated)
    sessions = []
    for number in range(count):
        system = systems[zipf_rank(shared.count, shared.exponent, rng)]
        repeats = rng.random() < traffic.repeat_share
        opening = rng.choice(common) if repeats else None
        sessions.append(_session(traffic, number, planning, writer, system, opening))
    return Planned(sessions)


def _session(
    traffic: ConversationTraffic,
    number: int,
    planning: Planning,
    writer: Writer,
    system: str,
    opening: str | None,
) -> SessionPlan:
    turns = [
        _turn(traffic, at, planning, writer, system, opening)
        for at in range(max(1, draw_int(traffic.turns, planning.rng)))
    ]
    return planning.session(
        number,
        turns,
        replies=traffic.replies,
        reasoning=traffic.reasoning,
        shared=1,
        repeats=opening is not None,
    )


def _turn(
    traffic: ConversationTraffic,
    at: int,
    planning: Planning,
    writer: Writer,
    system: str,
    opening: str | None,
) -> Turn:
    lengths = traffic.message_sentences, traffic.message_tokens
    if at == 0:
        text = opening or writer.fresh("message", *lengths)
    else:
        text = writer.drawn("message", *lengths)
    messages: tuple[Message, ...] = ({"role": "user", "content": text},)
    if at == 0:
        messages = ({"role": "system", "content": system}, *messages)
    think_s = draw(traffic.think_s, planning.rng) if at else 0.0
    reply = writer.corpus.reply(planning.rng)
    return planning.turn(messages, think_s=think_s, recorded_reply=reply)
