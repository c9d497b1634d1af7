"""The plan of a run: token-exact where the profile asks for it, and fresh where that can be shown."""

from __future__ import annotations

import msgspec

from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.core.tokenizer import load_tokenizer
from loadkit.planning.counters import counter_for, needs_tokens
from loadkit.planning.freshness import check_fresh
from loadkit.profiles import Profile
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import TrafficPlan
from loadkit.traffic.requests import requests_of

# A check of every turn takes about a second for so much text; above it only openings are looked at.
MAX_WHOLE_CHARS = 4_000_000
# Smaller blocks find more in common, so this is the strict side where nobody says.
DEFAULT_BLOCK_SIZE = 16


def plan_for_run(
    profile: Profile,
    *,
    tokenizer: str | None,
    block_size: int | None = None,
    url: str | None = None,
    key: Secret | None = None,
    model: str | None = None,
) -> TrafficPlan:
    """Plan a profile's traffic for the endpoint at `url`.

    With a tokenizer (folder or hub name) lengths in tokens are counted with it, and a plan that
    shares blocks by accident is refused (InputError). Without one the endpoint's /tokenize counts,
    if the profile gives lengths in tokens at all, and nothing is said about freshness. The plan
    says in `freshness` what was found, and whether its openings alone were looked at.
    """
    if tokenizer is not None:
        served = load_tokenizer(tokenizer)
        plan = build_plan(profile, counter_for(profile, served))
        size = block_size or DEFAULT_BLOCK_SIZE
        found = check_fresh(plan, served, size, openings_only=_is_long(plan))
        found.require_fresh(profile.name)
        return msgspec.structs.replace(plan, freshness=found.to_dict())
    if url is None or not needs_tokens(profile):
        return build_plan(profile)
    with ControlPlane(Endpoint.parse(url), key=key) as control:
        return build_plan(profile, counter_for(profile, None, control, model))


def _is_long(plan: TrafficPlan) -> bool:
    """Whether the prompts of all turns, their histories included, are too much to look through."""
    seen = 0
    for request in requests_of(plan):
        prompt = request.turn.prompt
        seen += len(prompt or ()) + sum(len(str(m.get("content"))) for m in request.messages)
        if seen > MAX_WHOLE_CHARS:
            return True
    return False
