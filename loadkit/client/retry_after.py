"""The Retry-After header of a 429 or 503: seconds, or an HTTP date."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime


def retry_after_s(value: str, date: str | None = None) -> float | None:
    """Seconds to wait from now, at least 0; None when it is neither of the two forms.

    date: the answer's Date header, which a waiting time counts from so that a server's wrong clock
    does no harm; without it our own clock is used. RFC 9110, 10.2.3.
    """
    try:
        seconds = float(value)
    except ValueError:
        until = _unix(value)
        now = _unix(date) if date else None
        seconds = math.nan if until is None else until - (time.time() if now is None else now)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _unix(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
