"""Randomized single-turn prompts, each sent once: of a generated corpus, or of a file of prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from loadkit.profiles import CorpusTraffic
from loadkit.traffic.draw import zipf_rank
from loadkit.traffic.limits import Limit
from loadkit.traffic.log import LoggedPrompt, read_prompts
from loadkit.traffic.plan import Message, SessionPlan
from loadkit.traffic.planning import Planned, Planning
from loadkit.traffic.sharing import system_prompts

replace = msgspec.structs.replace
MANY_ALIKE = 1000


def plan(traffic: CorpusTraffic, count: int, planning: Planning) -> Planned:
    """`count` requests of pairwise different prompts. A file that has fewer is started again only
    where that is allowed: a wrap."""
    if traffic.is_file:
        return _from_file(traffic, count, planning)
    limit = Limit(traffic.max_prompt_tokens, traffic.too_long, planning)
    made: dict[bytes, SessionPlan] = {}
    alike = 0
    for session in _generated(traffic, count, planning):
        if len(made) == count or alike == MANY_ALIKE:
            break
        turn = session.turns[0]
        key = msgspec.json.encode((turn.messages, turn.prompt))
        alike = alike + 1 if key in made else 0
        made.setdefault(key, session)
    sessions = limit.applied(list(made.values()))
    wraps = planning.check_wrap(traffic.wrap, len(made), count)
    return Planned(
        again(sessions, count - limit.dropped, planning) if wraps else sessions,
        wraps,
        limit.truncations,
        limit.dropped,
    )


def _generated(traffic: CorpusTraffic, count: int, planning: Planning) -> Iterator[SessionPlan]:
    """Sessions without end, numbered from 0."""
    rng, writer = planning.rng, planning.writer(traffic.corpus)
    shared = traffic.system_prompts
    systems = [] if shared is None else system_prompts(writer, shared)
    for number in itertools.count():
        before: tuple[Message, ...] = ()
        if shared is not None:
            system = systems[zipf_rank(shared.count, shared.exponent, rng)]
            before = ({"role": "system", "content": system},)
        if traffic.prompt_tokens is not None:
            front = planning.text_front(before)
            text = writer.fresh_prompt(traffic.prompt_tokens, before, front)
        else:
            text = writer.fresh("message", traffic.message_sentences, traffic.message_tokens)
        user: Message = {"role": "user", "content": text}
        yield planning.single(number, (*before, user), shared=len(before))


def _from_file(traffic: CorpusTraffic, count: int, planning: Planning) -> Planned:
    """Prompts drawn without repetition, one a conversation: its later turns repeat its first."""
    notes: list[str] = []
    rows = first_of_each(read_prompts(traffic.corpus, notes=notes))
    rows = planning.rng.sample(rows, min(count, len(rows)))
    limit = Limit(traffic.max_prompt_tokens, traffic.too_long, planning)
    sessions = limit.applied(
        [
            logged_session(number, row, planning, shared=_shared(traffic, row))
            for number, row in enumerate(rows)
        ]
    )
    wraps = planning.check_wrap(traffic.wrap, len(sessions) + limit.dropped, count)
    if wraps:
        sessions = again(sessions, count, planning)
    return Planned(sessions, wraps, limit.truncations, limit.dropped, notes=tuple(notes))


def _shared(traffic: CorpusTraffic, row: LoggedPrompt) -> int:
    """All of a prompt, where those of the file may have in common what they like. A text is one
    message unless it stays a text: its length covers both."""
    return len(row.prompt or row.messages) if traffic.sharing == "allow" else 0


def first_of_each(prompts: list[LoggedPrompt]) -> list[LoggedPrompt]:
    """Different prompts, the first of each session."""
    seen: set[str] = set()
    distinct: dict[bytes, LoggedPrompt] = {}
    for prompt in prompts:
        if prompt.session is None or prompt.session not in seen:
            distinct.setdefault(prompt.key, prompt)
        if prompt.session is not None:
            seen.add(prompt.session)
    return list(distinct.values())


def logged_session(
    number: int, prompt: LoggedPrompt, planning: Planning, **more: Any
) -> SessionPlan:
    """A session of one logged prompt. A text goes through chat as a user's message unless the
    profile asks for completions; token ids always go through completions."""
    messages, text = prompt.messages, prompt.prompt
    if isinstance(text, str) and planning.request.api != "completions":
        messages, text = ({"role": "user", "content": text},), None
    if text is not None:
        turn = planning.turn((), logged=prompt.max_tokens, prompt=text)
        return planning.session(number, [turn], api="completions", **more)
    turn = planning.turn(messages, logged=prompt.max_tokens)
    api = "chat" if planning.request.api == "completions" else planning.request.api
    return planning.session(number, [turn], api=api, tools=prompt.tools, **more)


def again(sessions: list[SessionPlan], count: int, planning: Planning) -> list[SessionPlan]:
    """Sessions over and over, each time another user's. All of them repeat on purpose."""
    return [
        replace(
            sessions[number % len(sessions)],
            session=f"{planning.label}-{number:05d}",
            repeats=True,
        )
        for number in range(count)
    ]
