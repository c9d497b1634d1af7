"""`loadkit prelaunch PROFILE --log LOG -o DIR`: forecast, run, gate and report in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadkit.cli import options
from loadkit.cli.options import Judging, Sending, argument, flag, grouped, option
from loadkit.core.units import plural

if TYPE_CHECKING:
    from loadkit.prelaunch import Cost, Outcome


@grouped
def prelaunch(
    profile: Annotated[str, argument("Bundled name, or a path.", "PROFILE")],
    output: Annotated[Path, option("Folder of all results; resumable.", "DIR", "-o", "--output")],
    sending: Sending,
    judging: Judging,
    log: Annotated[
        list[Path] | None, option("Production's request log; repeatable.", "LOG", "--log")
    ] = None,
    expected: Annotated[
        Path | None, option("A forecast made before, instead of --log.", "FILE")
    ] = None,
    url: Annotated[
        str | None, option("The endpoint [default: our reference server].", "URL")
    ] = None,
    traffic: Annotated[
        str, option("Production's traffic as a multiple of the log's.", "20x")
    ] = "1x",
    horizon: Annotated[float | None, option("Seconds from a cold start.", "S")] = None,
    capacity: Annotated[
        str | None, option("Cache: 30k blocks, 3Mtok [default: the server's].", "SIZE")
    ] = None,
    model_config: Annotated[
        Path | None,
        option("The served model's config.json, if the server tells no block size.", "PATH"),
    ] = None,
    format: Annotated[
        str, option("A log format's name; found from the first rows unless given.", "NAME")
    ] = "auto",
    budget: Annotated[
        str | None, option("Refuse a plan that may send more than this.", "500req,2Mtok")
    ] = None,
    dry_run: Annotated[
        bool, flag("--dry-run", "Print the plan, its time and tokens; send nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Is staging honest, and what will launch day look like? Exit 0: PASS, 1: FAIL, 3: cannot tell.

    Finished stages are kept: the same command again goes on where it was stopped.
    """
    from loadkit.cli import gate_view
    from loadkit.cli.ci import write_verdict
    from loadkit.cli.interrupt import interruptible
    from loadkit.cli.log_input import as_json as to_text
    from loadkit.cli.run_view import progress
    from loadkit.core.units import parse_traffic
    from loadkit.corpora.public import tell_licences
    from loadkit.prelaunch import Job, check_budget, cost_of, parse_budget
    from loadkit.prelaunch import prelaunch as run_stages

    limit = parse_budget(budget) if budget else None
    tell_licences([str(each) for each in log or ()])
    chosen, plan = sending.planned(profile, url)
    cost = cost_of(plan, chosen, _counter(sending.tokenizer) if dry_run or limit else None)
    if dry_run:
        _show_cost(chosen.name, cost, as_json=as_json)
    if limit:
        check_budget(cost, limit)
    if dry_run:
        return
    job = Job(
        chosen,
        plan,
        output,
        logs=tuple(log or ()),
        expected=expected,
        log_format=format,
        traffic=parse_traffic(traffic),
        horizon_s=horizon,
        capacity=capacity,
        url=url,
        model=sending.model,
        tokenizer=sending.tokenizer,
        block_size=sending.block_size,
        model_config=model_config,
        processes=sending.processes,
        key=sending.key(),
        policy=judging.policy,
        baseline=judging.baseline,
    )
    kept = f"finished stages are kept in {output}"
    with interruptible(kept), progress(chosen.name, plan.num_requests) as on_progress:
        done = run_stages(job, _Show(on_progress))
    write_verdict(done.verdict, name=chosen.name, junit=judging.junit, markdown=judging.markdown)
    if as_json:
        print(to_text(_object(done, cost, output)))
    else:
        gate_view.show(done.verdict)
    _say(f"Report: {done.report}")
    raise typer.Exit(done.verdict.exit_code)


class _Show:
    """Stages on stderr, a line each; requests on the bar."""

    def __init__(self, on_progress: Any):
        self.progress = on_progress

    def stage(self, text: str) -> None:
        _say(text)


def _say(text: str) -> None:
    import sys

    from loadkit.report.words import for_log

    print(f"loadkit: {for_log(text)}", file=sys.stderr)


def _counter(tokenizer: str | None) -> Any:
    """Tokens of a text by the served tokenizer; None where none was named."""
    if tokenizer is None:
        return None
    from loadkit.core.tokenizer import load_tokenizer

    served = load_tokenizer(tokenizer)
    return lambda text: len(served.encode(text, add_special_tokens=False))


def _show_cost(name: str, cost: Cost, *, as_json: bool) -> None:
    from msgspec import to_builtins

    from loadkit.cli.log_input import as_json as to_text

    if as_json:
        print(to_text({"schema": "loadkit.prelaunch-plan/1", "profile": name, **to_builtins(cost)}))
        return
    how = "about, 4 characters a token" if cost.is_estimate else "by the tokenizer"
    print(f"{name}: {plural(cost.requests, 'request')} in {plural(cost.sessions, 'session')}")
    print(f"prompt tokens  {cost.prompt_tokens:,} ({how}, history included, cached or not)")
    print(f"output tokens  at most {cost.output_tokens:,}")
    print(
        f"time           at least {cost.at_least_s:,.0f} s, stopped after {cost.at_most_s:,.0f} s"
    )
    print("stages         forecast, run, gate, report; nothing was sent")


def _object(done: Outcome, cost: Cost, folder: Path) -> dict[str, Any]:
    from msgspec import to_builtins

    return {
        "schema": "loadkit.prelaunch/1",
        "folder": str(folder),
        "stages": done.stages,
        "cost": to_builtins(cost),
        "gate": done.verdict.to_dict(),
        "report": str(done.report),
    }
