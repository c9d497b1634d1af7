"""Registers the verbs and turns loadkit's errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from loadkit.core.errors import LoadkitError
from loadkit.core.torch_free import forgo_torch

# One line each, short enough for 80 columns; the verbs' own help says more.
VERBS = {
    "demo": "The replay mirage on a real model, in minutes.",
    "analyze": "The share of a log's prompt tokens a cache can reuse, by cause.",
    "forecast": "The hit rate to expect in production.",
    "synthesize": "A workload that shares blocks as the log does, without its text.",
    "run": "Send a profile's traffic; measure timing and cached tokens.",
    "report": "A run's report as one offline HTML file.",
    "gate": "Does staging look like production? PASS, FAIL or INCONCLUSIVE.",
    "compare": "Runs side by side: what changed, and how sure that is.",
    "prelaunch": "Forecast, run, gate and report in one command; resumable.",
    "serve": "The reference server, which says why each cached token hit.",
    "calibrate": "How exact this machine's client timing is.",
    "profiles": "List the bundled profiles, or validate and show one.",
    "corpora": "List the bundled corpora, or validate one with samples.",
}

EXIT_FAULT = 70
EXIT_BROKEN_PIPE = 128 + 13


class _Command(TyperCommand):
    """A verb whose help names an argument without its type, `LOG <list[Path]>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperArgument):
                param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
        return params


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from loadkit import __version__

        print(f"loadkit {__version__}")
        raise typer.Exit


@app.callback()
def _loadkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What prefix-cache hit rate will production really see, and does staging look like it?"""


@cache  # a second registration would make every later start slower
def _register() -> None:
    for verb, short in VERBS.items():
        module = import_module(f"loadkit.cli.{verb}")
        app.command(name=verb, short_help=short, cls=_Command)(getattr(module, verb))


def _start() -> None:
    """Run the command. Typer and Rich catch a broken pipe and exit with 1, from within `except`."""
    try:
        app()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError) or not _is_read():
            sys.exit(EXIT_BROKEN_PIPE)
        if isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt):
            raise KeyboardInterrupt from None  # Typer would end without a word
        raise


def _is_read() -> bool:
    """Whether stdout took all that was printed. Where not, nothing more is tried at exit."""
    try:
        sys.stdout.flush()
        return True
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def _printable(message: str) -> str:
    """One line that cannot command a terminal or hide itself: a log's keys may stand in it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)


def main() -> None:
    """Entry point. Exit codes: 0 pass, 1 gate failed, 2 bad input, 3 could not measure.

    A fault of ours keeps its traceback and exits with 70 (EX_SOFTWARE): Python's own 1 would be
    taken for a verdict. So would be the 1 with which others answer a reader that went away, as in
    `loadkit analyze LOG | head -1`: here that is 141, what the shell says of a broken pipe.
    """
    try:
        _register()
        forgo_torch()
        _start()
    except LoadkitError as error:
        print(f"loadkit: {_printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("loadkit: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        print("loadkit: this is a fault of loadkit, not of your input", file=sys.stderr)
        sys.exit(EXIT_FAULT)
