"""Before a run: asks the endpoint, settles its cache, writes all that the run needs to a folder.

Must not import locust: this is the parent process. Nothing after it needs a profile or a tokenizer
until the run folder is made.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from loadkit.client.cache_setup import CacheSetup
from loadkit.client.control import ControlPlane, ModelCard, NotListed
from loadkit.client.secret import Secret
from loadkit.client.timeouts import Timeouts
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import load_tokenizer
from loadkit.locust_users.isolation import reset_and_verify
from loadkit.locust_users.settings import RetryRule, Settings
from loadkit.profiles import ClosedLoop, Profile
from loadkit.profiles.kinds import MixtureTraffic
from loadkit.runs.context import RunContext, Stage
from loadkit.traffic.arrivals import stage_edges
from loadkit.traffic.plan import SessionPlan, TrafficPlan

DISTRIBUTIONS = ("loadkit-llm", "locust", "httptools")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user says about the endpoint and the load. None: take what the server says.

    model: None takes the only one the endpoint lists. expected_hit_rate: {estimate, low, high}, the
    band behind the live split of `web`. metrics_port: of a Prometheus page of our own during the run.
    """

    model: str | None = None
    tokenizer: str | None = None
    block_size: int | None = None
    processes: int = 1
    web: bool = False
    expected_hit_rate: dict[str, float] | None = None
    remote: bool = False
    metrics_port: int | None = None


def prepare(
    profile: Profile,
    plan: TrafficPlan,
    control: ControlPlane,
    choices: Choices,
    key: Secret | None,
) -> tuple[Settings, RunContext]:
    """Settings for the workers, and what is known of the run before it.

    InputError: no server, a wrong key, no such model, another tokenizer or block size than the
    server's, a cache that cannot be treated as the profile says. CannotMeasure: a reset that did
    not empty the cache.
    """
    url = control.endpoint.url
    card = served_model(control, choices.model, url)
    block_size = choose_block_size(card, choices.block_size, url)
    check_tokenizer(card, choices.tokenizer, url)
    check_salt(profile, plan)
    settings = make_settings(profile, plan, url, card, choices)
    notes = [SALTED] if settings.cache_salt else []
    if control.models_unread is not None:
        notes.append(MODELS_UNREAD % control.models_unread)
    if profile.cache == "reset":
        notes += reset_and_verify(control, settings, key)
    return settings, _context(profile, plan, settings, card, choices, block_size, notes)


def observe_before(context: RunContext, control: ControlPlane) -> None:
    """Note the server's counters as they are before the run, and what else its dialect tells."""
    context.counters_before = control.prefix_counters()
    if control.metrics_refused:
        context.notes = [*context.notes, METRICS_REFUSED]
    if control.metrics_unread is not None:
        context.notes = [*context.notes, METRICS_UNREAD % control.metrics_unread]
    if context.counters_before is not None and context.counters_before.source == "llamacpp":
        context.num_slots = control.num_slots()
    setup = control.cache_setup()
    if setup is not None:
        take_setup(context, setup)


def take_setup(context: RunContext, setup: CacheSetup) -> None:
    """Fill in what /metrics tell of the cache and nobody else has. InputError, before anything is
    sent, for another block size than the server's."""
    given = context.block_size
    if None not in (given, setup.block_size) and given != setup.block_size:
        raise InputError(
            _OTHER_BLOCKS % (setup.block_size, given), where=context.url, remedy=_LEAVE_OUT
        )
    context.block_size = given or setup.block_size
    if context.capacity_blocks is None and setup.num_blocks is not None:
        context.capacity_blocks = setup.num_blocks // setup.engines
    context.engines, context.prefix_caching = setup.engines, setup.prefix_caching
    context.kept_blocks = setup.kept_blocks


def kinds_of(profile: Profile) -> set[str]:
    """Kinds of traffic in a profile, those of a mixture's parts."""
    traffic = profile.traffic
    if isinstance(traffic, MixtureTraffic):
        return {part.traffic.kind for part in traffic.parts}
    return {traffic.kind}


_OTHER_BLOCKS = "the server's cache has blocks of %d tokens, --block-size says %d"
_LEAVE_OUT = "leave out --block-size"
METRICS_REFUSED = (
    "/metrics refused this key: what the server's Prometheus counters say is unknown, not 0, and was "
    "compared with nothing. loadkit serve shows them to the admin key alone, where there are several."
)
METRICS_UNREAD = (
    "/metrics could not be read (%s): what the server's Prometheus counters say is unknown, not 0"
)
MODELS_UNREAD = "/v1/models could not be read (%s): what it may say of the model's cache and tokenizer is unknown"
SALTED = (
    "cache: salt. Every request carried a salt of this run: isolation from what the cache held "
    "before, which stays there and takes its room. No reset."
)


def served_model(control: ControlPlane, wanted: str | None, url: str) -> ModelCard:
    """The model to ask for. A list of models that cannot be had stops nobody who names one; else
    NotListed, and InputError as of `choose_model`."""
    try:
        cards = control.list_models()
    except NotListed:
        if wanted is None:
            raise
        return ModelCard(wanted)
    return choose_model(cards, wanted, url)


def choose_model(cards: list[ModelCard], wanted: str | None, url: str) -> ModelCard:
    """The model to ask for. InputError when it is not there, or there is more than one to choose."""
    listed = ", ".join(card.id for card in cards[:8])
    if wanted is None:
        if len(cards) != 1:
            what = f"{len(cards)} models: {listed}" if cards else "no model at /v1/models"
            what = f"the server lists {what}"
            raise InputError(what, where=url, remedy="name one with --model")
        return cards[0]
    for card in cards:
        if card.id == wanted:
            return card
    if cards:
        raise InputError(f"no model {wanted!r}", where=url, remedy=f"it lists: {listed}")
    return ModelCard(wanted)


def choose_block_size(card: ModelCard, wanted: int | None, url: str) -> int | None:
    """The server's block size, else the one given. InputError if they differ: no prediction made
    with another size could come true."""
    if None not in (wanted, card.block_size) and wanted != card.block_size:
        raise InputError(_OTHER_BLOCKS % (card.block_size, wanted), where=url, remedy=_LEAVE_OUT)
    return card.block_size or wanted


def check_tokenizer(card: ModelCard, tokenizer: str | None, url: str) -> None:
    """InputError, before anything is sent, for a tokenizer that is not to be had or not served."""
    if tokenizer is None:
        return
    fingerprint = load_tokenizer(tokenizer).fingerprint
    if card.tokenizer_fingerprint not in (None, fingerprint):
        raise InputError(
            f"the server has another tokenizer than {tokenizer}",
            where=url,
            remedy="give --tokenizer the folder or name of the model that is served",
        )


def check_salt(profile: Profile, plan: TrafficPlan) -> None:
    """InputError for a salt where the API has no field for one."""
    if profile.cache == "salt" and any(s.api == "messages" for s in every_session(plan.sessions)):
        raise InputError(
            "the messages API has no cache_salt",
            where=f"{profile.name}: cache",
            remedy="use cache: reset, or as_is",
        )


def make_settings(
    profile: Profile, plan: TrafficPlan, url: str, card: ModelCard, choices: Choices
) -> Settings:
    """Settings for the workers. More processes than users or sessions would have nothing to do."""
    arrivals, request = profile.arrivals, profile.request
    closed = isinstance(arrivals, ClosedLoop)
    users = arrivals.users if isinstance(arrivals, ClosedLoop) else len(plan.sessions)
    return Settings(
        url=url,
        model=card.id,
        loop=arrivals.loop,
        run_id=secrets.token_hex(4),
        users=users if closed else 1,
        ramp_up_s=arrivals.ramp_up_s if isinstance(arrivals, ClosedLoop) else 0.0,
        processes=_num_workers(choices, users, len(plan.sessions)),
        remote=choices.remote,
        temperature=request.temperature,
        ignore_eos=request.ignore_eos,
        exact_output=request.exact_output,
        max_tokens_field=request.max_tokens_field,
        ask_usage=request.ask_usage,
        timeouts=Timeouts(
            request.connect_timeout_s,
            request.first_token_timeout_s,
            request.idle_timeout_s,
            request.timeout_s,
        ),
        retries=RetryRule(**request.retries.model_dump()),
        cache_salt=secrets.token_hex(8) if profile.cache == "salt" else None,
        max_duration_s=profile.max_duration_s,
        return_token_ids=card.returns_token_ids,
        web=choices.web,
        metrics_port=choices.metrics_port,
        expected_hit_rate=choices.expected_hit_rate,
    )


def _num_workers(choices: Choices, users: int, sessions: int) -> int:
    """Workers that were started elsewhere are as many as they are, with or without a share."""
    return choices.processes if choices.remote else max(1, min(choices.processes, users, sessions))


def every_session(sessions: Iterable[SessionPlan]) -> Iterable[SessionPlan]:
    """Sessions and, depth first, their sub-agents."""
    for session in sessions:
        yield session
        for turn in session.turns:
            yield from every_session(turn.sub_agents)


def requests_by_phase(sessions: Iterable[SessionPlan]) -> Counter[str]:
    """Planned requests of each phase."""
    planned: Counter[str] = Counter()
    for session in every_session(sessions):
        planned[session.phase] += len(session.turns)
    return planned


def _context(
    profile: Profile,
    plan: TrafficPlan,
    settings: Settings,
    card: ModelCard,
    choices: Choices,
    block_size: int | None,
    notes: list[str],
) -> RunContext:
    planned = requests_by_phase(plan.sessions)
    return RunContext(
        profile=profile.model_dump(mode="json", by_alias=True),
        url=settings.url,
        model=settings.model,
        seed=profile.seed,
        started_unix_s=0.0,
        duration_s=0.0,
        processes=settings.processes,
        loop=settings.loop,
        kind=plan.kind,
        scheduled=planned.pop("measured", 0),
        scheduled_phases=dict(planned),
        wraps=plan.wraps,
        truncations=plan.truncations,
        freshness=plan.freshness,
        cache=profile.cache,
        stages=[Stage(*edge) for edge in stage_edges(profile)],
        tokenizer=choices.tokenizer,
        block_size=block_size,
        capacity_blocks=card.num_blocks,
        server_tokenizer_fingerprint=card.tokenizer_fingerprint,
        versions=_versions(),
        notes=[*notes, *plan.notes],
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
