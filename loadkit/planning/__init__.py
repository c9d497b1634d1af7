"""Between plan and run: counts a plan's tokens as the server will, and proves its prompts fresh.

`plan_for_run` is what a run calls: it plans a profile with the served tokenizer or the endpoint's
/tokenize, and refuses a plan whose prompts share what nobody declared.
"""

from loadkit.planning.counters import EndpointCounter, LocalCounter, counter_for, needs_tokens
from loadkit.planning.for_run import plan_for_run
from loadkit.planning.freshness import FreshnessReport, check_fresh

__all__ = [
    "EndpointCounter",
    "FreshnessReport",
    "LocalCounter",
    "check_fresh",
    "counter_for",
    "needs_tokens",
    "plan_for_run",
]
