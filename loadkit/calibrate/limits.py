"""As many open files as this user may have."""

from __future__ import annotations

import contextlib
import resource


def allow_many_files() -> int:
    """Raise the soft limit of this process to the hard one; returns what it now is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
