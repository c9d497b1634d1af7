"""Registers the verbs and turns loadkit's errors into one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module

import typer

from loadkit.core.errors import LoadkitError

VERBS = (
    "demo",
    "analyze",
    "forecast",
    "synthesize",
    "run",
    "report",
    "gate",
    "serve",
    "profiles",
    "corpora",
)

EXIT_FAULT = 70

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What prefix-cache hit rate will production really see, and does staging look like it?",
)


def _register() -> None:
    for verb in VERBS:
        module = import_module(f"loadkit.cli.{verb}")
        app.command(name=verb)(getattr(module, verb))


def main() -> None:
    """Entry point. Exit codes: 0 pass, 1 gate failed, 2 bad input, 3 could not measure.

    A fault of ours keeps its traceback and exits with 70 (EX_SOFTWARE): Python's own 1 would be
    taken for a verdict.
    """
    _register()
    try:
        app()
    except LoadkitError as error:
        print(f"loadkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("loadkit: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        print("loadkit: this is a fault of loadkit, not of your input", file=sys.stderr)
        sys.exit(EXIT_FAULT)
