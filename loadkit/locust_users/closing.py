"""After a run: what its working folder shows becomes the context of the run folder.

Serves a run that ended as planned and one whose launcher was killed alike. No locust import.
"""

from __future__ import annotations

import msgspec

from loadkit.client.prometheus import PrefixCounters
from loadkit.core.errors import CannotMeasure
from loadkit.locust_users.settings import WorkFolder
from loadkit.runs.context import RunContext


def closed_context(
    work: WorkFolder, *, after: PrefixCounters | None, interrupted: bool = False
) -> RunContext:
    """The context as it is once the workers have ended. CannotMeasure if no load ever started."""
    draft, start, statuses = work.context(), work.started(), work.statuses()
    if start is None or not work.has_journals():
        raise CannotMeasure("the run ended before it sent anything", code="too_few_samples")
    return msgspec.structs.replace(
        draft,
        started_unix_s=start.unix_s,
        duration_s=max((status.elapsed_s for status in statuses), default=0.0),
        mutations=sum(status.mutations for status in statuses),
        compactions=sum(status.compactions for status in statuses),
        missing_workers=draft.processes - sum(status.finished for status in statuses),
        interrupted=interrupted,
        stalls=[status.stalls for status in statuses if status.stalls is not None],
        counters_after=after,
    )
