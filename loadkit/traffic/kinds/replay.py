"""Prompts sent again: a log as it was, row by row, or a few prompts over and over."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from loadkit.core.errors import InputError
from loadkit.profiles import Distribution, ReplayTraffic
from loadkit.traffic.kinds.corpus import again, logged_session
from loadkit.traffic.limits import Limit
from loadkit.traffic.log import LoggedPrompt, read_prompts
from loadkit.traffic.planning import Planned, Planning

DEFAULT_SENTENCES = Distribution(
    distribution="constant", mean=6, max=400, source="loadkit's default"
)


def plan(traffic: ReplayTraffic, count: int | None, planning: Planning) -> Planned:
    """Rows of a log that are sent once keep their session's name, so that its continuation counts
    as such; prompts that are sent again are other users' each time.

    count: None where the section's own `requests` says how many (None there: each prompt once).
    """
    notes: list[str] = []
    prompts = _prompts(traffic, traffic.requests or count, planning, notes)
    if traffic.distinct_prompts is not None:
        prompts = _distinct_sample(prompts, traffic.distinct_prompts, planning)
    requests = traffic.requests or count or len(prompts)
    wraps = planning.check_wrap(traffic.wrap, len(prompts), requests)
    rows = prompts[: min(requests, len(prompts))]
    if traffic.order == "shuffled":
        rows = _shuffled(rows, planning.rng)
    limit = Limit(traffic.max_prompt_tokens, traffic.too_long, planning)
    sessions, sent = [], []
    for number, row in enumerate(rows):
        named = {} if row.session is None else {"session": row.session}
        kept = limit.applied(
            [logged_session(number, row, planning, guarded=False, repeats=True, **named)]
        )
        sessions += kept
        sent += [row] * len(kept)
    if wraps:
        planning.check_wrap("allow", len(sessions), requests)
        sessions = again(sessions, requests, planning)
    in_log_order = not wraps and traffic.order == "log"
    logged = _logged_times(sent, traffic.speed) if in_log_order else None
    return Planned(sessions, wraps, limit.truncations, limit.dropped, logged, tuple(notes))


def _prompts(
    traffic: ReplayTraffic, requests: int | None, planning: Planning, notes: list[str]
) -> list[LoggedPrompt]:
    if traffic.log is not None:
        return read_prompts(
            traffic.log,
            format=traffic.format,
            vocab_size=traffic.vocab_size,
            seed=planning.seed,
            notes=notes,
        )
    writer = planning.writer(str(traffic.corpus))
    sentences = traffic.message_sentences
    if sentences is None and traffic.message_tokens is None:
        sentences = DEFAULT_SENTENCES
    texts = (
        writer.fresh("message", sentences, traffic.message_tokens)
        for _ in range(traffic.distinct_prompts or requests or 1)
    )
    made = [LoggedPrompt(({"role": "user", "content": text},)) for text in texts]
    return list({prompt.key: prompt for prompt in made}.values())


def _shuffled(rows: list[LoggedPrompt], rng: Random) -> list[LoggedPrompt]:
    """Rows at random places, those of one session in their own order."""
    places: dict[str, list[int]] = defaultdict(list)
    order = rng.sample(range(len(rows)), len(rows))
    for place, number in enumerate(order):
        places[rows[number].session or f"\0{number}"].append(place)
    out = list(rows)
    following = {session: iter(mine) for session, mine in places.items()}
    for number, row in enumerate(rows):
        out[next(following[row.session or f"\0{number}"])] = row
    return out


def _logged_times(prompts: list[LoggedPrompt], speed: float) -> list[float] | None:
    """Seconds after the first row; None unless every row has a time."""
    times = [prompt.timestamp_s for prompt in prompts if prompt.timestamp_s is not None]
    if not times or len(times) < len(prompts):
        return None
    first = min(times)
    return [(time - first) / speed for time in times]


def _distinct_sample(
    prompts: list[LoggedPrompt], count: int, planning: Planning
) -> list[LoggedPrompt]:
    distinct = list({prompt.key: prompt for prompt in prompts}.values())
    if len(distinct) < count:
        raise InputError(
            f"{count} distinct prompts asked for, there are {len(distinct)}",
            where=planning.where,
            remedy="lower traffic.distinct_prompts",
        )
    return planning.rng.sample(distinct, count)
