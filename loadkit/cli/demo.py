"""`loadkit demo`: the replay mirage on a real model behind a real prefix cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli.options import AsJson, flag, option


def demo(
    out: Annotated[
        Path, option("folder for logs, runs and report", "DIR", "--output", "-o")
    ] = Path("loadkit-demo"),
    force: Annotated[bool, flag("--force", "replace the folder of an earlier demo")] = False,
    model: Annotated[
        str | None, option("model folder or name (default: SmolLM2-135M)", "NAME")
    ] = None,
    as_json: AsJson = False,
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
