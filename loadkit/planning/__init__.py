"""Between plan and run: counts a plan's tokens as the server will, and proves its prompts fresh.

For `loadkit run`: `counter_for` gives `build_plan` its token counter, `check_fresh` looks at the
finished plan, `report.require_fresh(profile.name)` refuses it if prompts share what nobody declared.
"""

from loadkit.planning.counters import EndpointCounter, LocalCounter, counter_for, needs_tokens
from loadkit.planning.freshness import FreshnessReport, check_fresh

__all__ = [
    "EndpointCounter",
    "FreshnessReport",
    "LocalCounter",
    "check_fresh",
    "counter_for",
    "needs_tokens",
]
