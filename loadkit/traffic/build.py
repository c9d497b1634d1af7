"""Profile -> TrafficPlan: one function a traffic kind, all drawn from the profile's seed."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec

from loadkit import corpora
from loadkit.core.errors import InputError
from loadkit.profiles import (
    ClosedLoop,
    ConversationTraffic,
    CorpusTraffic,
    Distribution,
    Profile,
    ReplayTraffic,
)
from loadkit.traffic.draw import draw, draw_int, zipf_rank
from loadkit.traffic.log import LoggedPrompt, read_prompts
from loadkit.traffic.plan import Message, SessionPlan, TrafficPlan, Turn

FRESH_TRIES = 1000


def build_plan(profile: Profile) -> TrafficPlan:
    """Plan all requests of a run. Same profile, same seed: the same plan to the byte.

    Raises InputError when the plan would need a wrap that the profile does not allow.
    """
    traffic = profile.traffic
    if isinstance(traffic, ConversationTraffic):
        return _conversations(profile, traffic)
    if isinstance(traffic, CorpusTraffic):
        return _corpus(profile, traffic)
    return _replay(profile, traffic)


def start_times(profile: Profile, count: int, logged_s: list[float] | None = None) -> list[float]:
    """Intended starts in seconds. Closed loops start sessions when users are free: all 0."""
    arrivals = profile.arrivals
    if isinstance(arrivals, ClosedLoop):
        return [0.0] * count
    if arrivals.process == "log":
        if logged_s is None:
            raise InputError(
                "arrivals.process `log` needs a log with a timestamp in every row",
                where=profile.name,
                remedy="use poisson or constant with rate_per_s",
            )
        return logged_s
    rate = arrivals.rate_per_s or 1.0
    if arrivals.process == "constant":
        return [index / rate for index in range(count)]
    rng = Random(f"{profile.seed} arrivals")
    now, times = 0.0, []
    for _ in range(count):
        now += rng.expovariate(rate)
        times.append(now)
    return times


def _conversations(profile: Profile, traffic: ConversationTraffic) -> TrafficPlan:
    corpus = corpora.load(traffic.corpus)
    rng = Random(f"{profile.seed} conversation")
    shared = traffic.system_prompts
    systems = [corpus.system_prompt(rng, shared.sentences) for _ in range(shared.count)]
    common = corpus.common_questions(traffic.repeat_questions) if traffic.repeat_share else []
    sessions = []
    for index, start_s in enumerate(start_times(profile, traffic.sessions)):
        system = systems[zipf_rank(shared.count, shared.exponent, rng)]
        repeats = rng.random() < traffic.repeat_share
        opening = rng.choice(common) if repeats else None
        turns = _turns(profile, traffic, corpus, rng, system, opening)
        name = f"conversation-{index:05d}"
        sessions.append(SessionPlan(name, start_s, turns, "conversation", replies=traffic.replies))
    return TrafficPlan("conversation", tuple(sessions))


def _turns(
    profile: Profile,
    traffic: ConversationTraffic,
    corpus: corpora.Corpus,
    rng: Random,
    system: str,
    opening: str | None,
) -> tuple[Turn, ...]:
    turns = []
    for number in range(max(1, draw_int(traffic.turns, rng))):
        sentences = max(2, draw_int(traffic.message_sentences, rng))
        text = opening if number == 0 and opening else corpus.user_message(rng, sentences)
        messages: tuple[Message, ...] = ({"role": "user", "content": text},)
        if number == 0:
            messages = ({"role": "system", "content": system}, *messages)
        think_s = draw(traffic.think_s, rng) if number else 0.0
        max_tokens = _max_tokens(profile, rng)
        turns.append(Turn(messages, max_tokens, think_s, recorded_reply=corpus.reply(rng)))
    return tuple(turns)


def _corpus(profile: Profile, traffic: CorpusTraffic) -> TrafficPlan:
    rng = Random(f"{profile.seed} corpus")
    drawn = _draw_prompts(traffic.corpus, traffic.requests, traffic.message_sentences, rng)
    distinct = len({prompt.key for prompt in drawn})
    wraps = 0
    if distinct < traffic.requests:
        _refuse_wrap(profile, traffic.wrap, distinct, traffic.requests)
        wraps = -(-traffic.requests // distinct) - 1
        drawn = [drawn[index % len(drawn)] for index in range(traffic.requests)]
    return _single_turns(profile, "corpus", drawn, wraps, rng)


def _replay(profile: Profile, traffic: ReplayTraffic) -> TrafficPlan:
    rng = Random(f"{profile.seed} replay")
    if traffic.log is not None:
        prompts = read_prompts(traffic.log)
    else:
        count = traffic.distinct_prompts or traffic.requests or 1
        sentences = traffic.message_sentences or Distribution(
            distribution="constant", mean=6, max=400, source="loadkit's default"
        )
        prompts = _draw_prompts(str(traffic.corpus), count, sentences, rng)
    if traffic.distinct_prompts is not None:
        prompts = _distinct_sample(profile, prompts, traffic.distinct_prompts, rng)
    requests = traffic.requests or len(prompts)
    wraps = -(-requests // len(prompts)) - 1
    if wraps:
        _refuse_wrap(profile, traffic.wrap, len(prompts), requests)
    sent = [prompts[index % len(prompts)] for index in range(requests)]
    logged = _logged_times(sent, traffic.speed) if not wraps else None
    return _single_turns(profile, "replay", sent, wraps, rng, logged)


def _logged_times(prompts: list[LoggedPrompt], speed: float) -> list[float] | None:
    times = [prompt.timestamp_s for prompt in prompts]
    if not times or any(time is None for time in times):
        return None
    first = min(time for time in times if time is not None)
    return [(time - first) / speed for time in times if time is not None]


def _distinct_sample(
    profile: Profile, prompts: list[LoggedPrompt], count: int, rng: Random
) -> list[LoggedPrompt]:
    distinct = list({prompt.key: prompt for prompt in prompts}.values())
    if len(distinct) < count:
        raise InputError(
            f"{count} distinct prompts asked for, there are {len(distinct)}",
            where=profile.name,
            remedy="lower traffic.distinct_prompts",
        )
    return rng.sample(distinct, count)


def _draw_prompts(
    corpus_name: str, count: int, sentences: Distribution, rng: Random
) -> list[LoggedPrompt]:
    """`count` pairwise different prompts, or fewer when the corpus has no more."""
    if corpus_name.endswith((".jsonl", ".jsonl.gz")):
        prompts = list({prompt.key: prompt for prompt in read_prompts(corpus_name)}.values())
        return rng.sample(prompts, min(count, len(prompts)))
    corpus = corpora.load(corpus_name)
    fresh: dict[bytes, LoggedPrompt] = {}
    stale = 0
    while len(fresh) < count and stale < FRESH_TRIES:
        text = corpus.user_message(rng, max(2, draw_int(sentences, rng)))
        prompt = LoggedPrompt(({"role": "user", "content": text},))
        stale = stale + 1 if prompt.key in fresh else 0
        fresh[prompt.key] = prompt
    return list(fresh.values())


def _refuse_wrap(profile: Profile, wrap: str, distinct: int, requests: int) -> None:
    if wrap == "allow":
        return
    raise InputError(
        f"{requests} requests from {distinct} distinct prompts would send prompts again, "
        "which measures replay, not production",
        where=profile.name,
        remedy=f"ask for at most {distinct} requests, or set traffic.wrap: allow",
    )


def _single_turns(
    profile: Profile,
    kind: str,
    prompts: list[LoggedPrompt],
    wraps: int,
    rng: Random,
    logged_s: list[float] | None = None,
) -> TrafficPlan:
    """A session a prompt. Rows of a log that are sent once keep their session's name, so that its
    continuation counts as such; prompts that are sent again are other users' each time."""
    starts = start_times(profile, len(prompts), logged_s)
    sessions = [
        SessionPlan(
            f"{kind}-{index:05d}" if wraps or prompt.session is None else prompt.session,
            start_s,
            (Turn(prompt.messages, _max_tokens(profile, rng, prompt.max_tokens)),),
            kind,
            tools=prompt.tools,
        )
        for index, (prompt, start_s) in enumerate(zip(prompts, starts, strict=True))
    ]
    sessions.sort(key=lambda session: session.start_s)
    return TrafficPlan(kind, _numbered(sessions), wraps=wraps)


def _numbered(sessions: list[SessionPlan]) -> tuple[SessionPlan, ...]:
    """Rows of one conversation count their turns on."""
    seen: Counter[str] = Counter()
    numbered = []
    for session in sessions:
        numbered.append(msgspec.structs.replace(session, first_turn=seen[session.session]))
        seen[session.session] += len(session.turns)
    return tuple(numbered)


def _max_tokens(profile: Profile, rng: Random, logged: int | None = None) -> int:
    """What the log asked for, up to the profile's maximum, else a draw."""
    drawn = max(1, draw_int(profile.request.max_tokens, rng))
    return drawn if logged is None else max(1, min(logged, int(profile.request.max_tokens.max)))
