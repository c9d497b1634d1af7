"""Profile -> TrafficPlan: the traffic's kind says what, the arrivals say when."""

from __future__ import annotations

from random import Random

from loadkit.profiles import MixturePart, MixtureTraffic, Profile
from loadkit.traffic.arrivals import start_times
from loadkit.traffic.kinds import plan_kind
from loadkit.traffic.lengths import ExactLengths, TokenCounter
from loadkit.traffic.plan import SessionPlan, TrafficPlan
from loadkit.traffic.planning import Planned, Planning
from loadkit.traffic.schedule import numbered, phased, scheduled


def build_plan(profile: Profile, counter: TokenCounter | None = None) -> TrafficPlan:
    """Plan all requests of a run. Same profile, same seed, same tokenizer: the same plan to the byte.

    counter: counts tokens as the served tokenizer does; only lengths in tokens need it. Raises
    InputError when the plan would need a wrap that the profile does not allow, or a tokenizer that
    is not there.
    """
    exact = None if counter is None else ExactLengths(counter)
    planned, sessions = _timed(profile, exact)
    return TrafficPlan(
        profile.traffic.kind,
        tuple(phased(numbered(sessions), profile)),
        wraps=planned.wraps,
        truncations=planned.truncations,
        dropped=planned.dropped,
        notes=planned.notes,
    )


def _timed(profile: Profile, exact: ExactLengths | None) -> tuple[Planned, list[SessionPlan]]:
    traffic = profile.traffic
    if isinstance(traffic, MixtureTraffic) and traffic.sessions is None:
        return _by_own_arrivals(profile, traffic, exact)
    if isinstance(traffic, MixtureTraffic):
        planned = _mixed(profile, traffic, exact)
    else:
        planning = _planning(profile, traffic.kind, exact)
        planned = plan_kind(traffic, _count(traffic), planning)
    starts = start_times(
        profile.arrivals,
        len(planned.sessions),
        seed=str(profile.seed),
        where=profile.name,
        logged_s=planned.logged_s,
    )
    return planned, scheduled(planned.sessions, starts)


def _count(traffic: object) -> int | None:
    counted_by = getattr(traffic, "counted_by", None)
    return None if counted_by is None else int(getattr(traffic, counted_by))


def _planning(
    profile: Profile,
    label: str,
    exact: ExactLengths | None,
    part: MixturePart | None = None,
    openings: set[str] | None = None,
) -> Planning:
    return Planning(
        label=label,
        seed=profile.seed,
        request=profile.request,
        where=profile.name,
        max_tokens=None if part is None else part.max_tokens,
        exact=exact,
        openings=set() if openings is None else openings,
    )


def _mixed(profile: Profile, traffic: MixtureTraffic, exact: ExactLengths | None) -> Planned:
    """Each arrival is drawn to be of one part or another; the parts' sessions follow in order."""
    rng = Random(f"{profile.seed} mixture")
    weights = [part.weight or 0.0 for part in traffic.parts]
    drawn = rng.choices(range(len(weights)), weights, k=traffic.sessions or 0)
    openings: set[str] = set()
    parts = []
    for number, part in enumerate(traffic.parts):
        planning = _planning(profile, part.name, exact, part, openings)
        count = drawn.count(number)
        parts.append(plan_part(part, count, planning) if count else Planned([]))
    queues = [iter(part.sessions) for part in parts]
    mixed = (next(queues[number], None) for number in drawn)
    return _together(parts, [session for session in mixed if session is not None])


def _by_own_arrivals(
    profile: Profile, traffic: MixtureTraffic, exact: ExactLengths | None
) -> tuple[Planned, list[SessionPlan]]:
    openings: set[str] = set()
    parts, sessions = [], []
    for part in traffic.parts:
        planning = _planning(profile, part.name, exact, part, openings)
        planned = plan_kind(part.traffic, _count(part.traffic), planning)
        assert part.arrivals is not None  # all parts have them, or the mixture counts its sessions
        starts = start_times(
            part.arrivals,
            len(planned.sessions),
            seed=f"{profile.seed} {part.name}",
            where=f"{profile.name}, part {part.name}",
            logged_s=planned.logged_s,
        )
        parts.append(planned)
        sessions += scheduled(planned.sessions, starts)
    sessions.sort(key=lambda session: session.start_s)
    return _together(parts, sessions), sessions


def plan_part(part: MixturePart, count: int, planning: Planning) -> Planned:
    """`count` sessions of a part. A batch is counted in whole suites: the last one is cut."""
    if part.traffic.kind != "batch":
        return plan_kind(part.traffic, count, planning)
    suites = -(-count // part.traffic.suite)
    planned = plan_kind(part.traffic, suites, planning)
    return Planned(planned.sessions[:count], wraps=planned.wraps, notes=planned.notes)


def _together(parts: list[Planned], sessions: list[SessionPlan]) -> Planned:
    return Planned(
        sessions,
        wraps=sum(part.wraps for part in parts),
        truncations=sum(part.truncations for part in parts),
        dropped=sum(part.dropped for part in parts),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )
