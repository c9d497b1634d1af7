"""`loadkit demo`: the replay mirage on a real model behind a real prefix cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli import options


def demo(
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="folder for logs, runs and report")
    ] = Path("loadkit-demo"),
    force: Annotated[
        bool, typer.Option("--force", help="replace the folder of an earlier demo")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="model folder or name (default: SmolLM2-135M)"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Run production-like and staging traffic against the reference server and compare them."""
    from loadkit.cli.demo_view import Display
    from loadkit.cli.interrupt import interruptible
    from loadkit.demo import run_demo

    with interruptible(f"nothing was changed in {out}"), Display() as display:
        result = run_demo(out, model=model, force=force, show=display)
    if as_json:
        import json

        print(json.dumps(result.to_dict(), indent=2))
    else:
        display.summary(result)
    if not result.worked:
        raise typer.Exit(3)
