"""For all tests: hypothesis draws the same examples on every machine; `loadkit` is at hand."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest
from command import Answer, Call
from hypothesis import settings

# No deadline: shared machines stall. No database: a run depends on nothing an earlier one left.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
# `pytest --hypothesis-profile=search`: other examples each time, to find what nobody thought of.
settings.register_profile("search", deadline=None)
settings.load_profile("same")

# A shell that starts tests in the background has them, and all they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def loadkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the `loadkit` command in this process, far quicker than in one of its own."""

    def call(*arguments: Any) -> Answer:
        from loadkit.cli import main

        monkeypatch.setattr(sys, "argv", ["loadkit", *map(str, arguments)])
        # Of this process only: other tests run models in it.
        monkeypatch.setattr("loadkit.cli.app.forgo_torch", lambda: None)
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return Answer(int(caught.value.code or 0), printed.out, printed.err)

    return call
