"""From planned sessions to a schedule: times, phases, priming, and the numbers of rows' turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from loadkit.profiles import Profile
from loadkit.traffic.arrivals import lead_s
from loadkit.traffic.plan import Message, Phase, SessionPlan, Turn

HELLO = "Hello."
replace = msgspec.structs.replace


def scheduled(sessions: Sequence[SessionPlan], starts: Sequence[float]) -> list[SessionPlan]:
    """Sessions with their starts, in order of time; those beyond the last start are left out."""
    timed = [
        replace(session, start_s=start_s)
        for session, start_s in zip(sessions, starts, strict=False)
    ]
    timed.sort(key=lambda session: session.start_s)
    return timed


def numbered(sessions: Sequence[SessionPlan]) -> list[SessionPlan]:
    """Rows of one conversation count their turns on."""
    seen: Counter[str] = Counter()
    out = []
    for session in sessions:
        first = seen[session.session]
        out.append(replace(session, first_turn=first) if first else session)
        seen[session.session] += len(session.turns)
    return out


def phased(sessions: Sequence[SessionPlan], profile: Profile) -> list[SessionPlan]:
    """Warm-up and priming apart from what is measured. No session id is in two phases: rows of a
    logged conversation that began in the warm-up stay in it."""
    warm = {
        session.session
        for number, session in enumerate(sessions)
        if number < profile.warmup_sessions or session.start_s < profile.warmup_s
    }
    later = lead_s(profile)
    marked = [
        _moved(session, later, "warmup" if session.session in warm else "measured")
        for session in sessions
    ]
    if profile.priming is None:
        return marked
    if profile.priming.what == "first_n":
        count = profile.priming.n or 0
        marked = [
            replace(session, repeats=True) if number < count else session
            for number, session in enumerate(marked)
        ]
        primed = [_opening(number, one) for number, one in enumerate(marked[:count])]
    else:
        primed = _prefixes(marked)
    spaced = [
        replace(session, start_s=number * later / max(1, len(primed)))
        for number, session in enumerate(primed)
    ]
    return spaced + marked


def _moved(session: SessionPlan, later_s: float, phase: Phase) -> SessionPlan:
    """The session so much later; its sub-agents are of the same phase."""
    if not later_s and phase == "measured":
        return session
    turns = tuple(
        replace(turn, sub_agents=tuple(_moved(sub, 0.0, phase) for sub in turn.sub_agents))
        if turn.sub_agents
        else turn
        for turn in session.turns
    )
    return replace(session, start_s=session.start_s + later_s, phase=phase, turns=turns)


def _opening(number: int, session: SessionPlan) -> SessionPlan:
    first = replace(
        session.turns[0], max_tokens=1, exact_output=False, leaves_after_s=None, sub_agents=()
    )
    return _priming(number, session, first, session.shared)


def _prefixes(sessions: Sequence[SessionPlan]) -> list[SessionPlan]:
    """A session for each distinct shared prefix, in the order in which they first occur."""
    primed: dict[bytes, SessionPlan] = {}
    for session in sessions:
        for one in (session, *(sub for turn in session.turns for sub in turn.sub_agents)):
            if not (one.shared or one.tools) or one.inherits_history:
                continue
            turn = _prefix_turn(one)
            key = msgspec.json.encode((one.tools, turn.messages, turn.prompt))
            if key not in primed:
                primed[key] = _priming(len(primed), one, turn, one.shared)
    return list(primed.values())


def _prefix_turn(session: SessionPlan) -> Turn:
    first = session.turns[0]
    if first.prompt is not None:
        return Turn((), 1, prompt=first.prompt[: session.shared])
    hello: Message = {"role": "user", "content": HELLO}
    return Turn((*first.messages[: session.shared], hello), 1)


def _priming(number: int, session: SessionPlan, turn: Turn, shared: int) -> SessionPlan:
    """repeats: whatever it shares with the run is what it is for."""
    return SessionPlan(
        f"priming-{number:05d}",
        0.0,
        (turn,),
        "priming",
        tools=session.tools,
        api=session.api,
        phase="priming",
        guarded=session.guarded,
        shared=shared,
        repeats=True,
    )
