"""Ctrl-C and SIGTERM: both tidy up in the same way, then one line and the shell's exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer


@contextmanager
def interruptible(otherwise: str) -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt as Ctrl-C does, so nothing is left behind.

    What the interrupt says, else `otherwise`, follows `interrupted; ` on stderr. Exits with 130, or
    143 after SIGTERM. A second SIGTERM is ignored: tidying up is bounded in time.
    """
    terminated = False

    def terminate(_: int, __: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(f"loadkit: interrupted; {str(interrupt) or otherwise}", file=sys.stderr)
        raise typer.Exit(143 if terminated else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
