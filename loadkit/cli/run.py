"""`loadkit run PROFILE --url URL -o DIR`: traffic at an endpoint, measured into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli import options


def run(
    profile: Annotated[
        str | None, typer.Argument(metavar="PROFILE", help="Bundled name, or a path.")
    ] = None,
    url: options.Url = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Run folder to make.")
    ] = None,
    model: options.Model = None,
    tokenizer: options.Tokenizer = None,
    block_size: options.BlockSize = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Instead of the profile's seed.")
    ] = None,
    settings: options.Settings = None,
    processes: options.Processes = 1,
    master: Annotated[
        bool, typer.Option("--master", help="Wait for workers that are started elsewhere.")
    ] = False,
    expect_workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many the master waits for.")
    ] = 1,
    worker: Annotated[
        bool, typer.Option("--worker", help="Be a worker of a master; needs no other argument.")
    ] = False,
    master_host: Annotated[
        str, typer.Option(metavar="HOST", help="The master's address, to listen at or to call.")
    ] = "127.0.0.1",
    master_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Its port.")
    ] = 5557,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=1, max=65535, help="Prometheus page of the run, on loopback."
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT", help="Also write export-FORMAT.json: vllm or aiperf; repeatable."
        ),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send the figures to an OpenTelemetry collector."),
    ] = None,
    recover: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Make the run folder of a run that was killed."),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Start it in Locust's web interface; Ctrl-C ends it.")
    ] = False,
    web_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Its port.")
    ] = 8089,
    web_host: Annotated[
        str, typer.Option(metavar="HOST", help="Address of the web interface; it has no password.")
    ] = "127.0.0.1",
    api_key_file: options.ApiKeyFile = None,
    expected: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Forecast to draw behind the live split (--web)."),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Empty the server's prefix cache first, and check it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="run.json on stdout, nothing else.")] = False,
) -> None:
    """Send a profile's traffic through Locust and measure timing and cached tokens."""
    from loadkit.cli import run_modes, run_view
    from loadkit.cli.interrupt import interruptible
    from loadkit.client.secret import read_api_key
    from loadkit.locust_users.launcher import run_profile
    from loadkit.locust_users.recover import tell_of_abandoned
    from loadkit.runs.folder import check_free

    if worker:
        raise typer.Exit(run_modes.work_for((master_host, master_port), api_key_file))
    run_modes.check_exports(export or ())
    if recover is None:
        run_modes.check_all_given({"PROFILE": profile, "--url URL": url, "-o DIR": output})
    out = run_modes.given(output, "-o")
    if recover is not None:
        result = run_modes.recovered(recover, out)
        run_modes.send_out(out, export or (), otlp)
        run_view.show(result, out, as_json=json)
        run_view.require_valid(result, out)
        return
    overrides = [*(settings or ()), *([] if seed is None else [f"seed={seed}"])]
    overrides += ["cache=reset"] if reset else []
    key = read_api_key(api_key_file)
    chosen, plan = run_modes.planned(
        run_modes.given(profile, "PROFILE"),
        overrides,
        tokenizer=tokenizer,
        block_size=block_size,
        url=url,
        key=key,
        model=model,
    )
    band = _band(expected)
    check_free(out)
    tell_of_abandoned(out.parent)
    token = run_modes.token((master_host, master_port), expect_workers) if master else None
    if web:
        run_view.announce(web_host, web_port)
    with (
        interruptible("nothing was kept"),
        run_view.progress(chosen.name, plan.num_requests) as on_progress,
    ):
        result = run_profile(
            chosen,
            plan,
            url=run_modes.given(url, "--url"),
            out=out,
            model=model,
            tokenizer=tokenizer,
            block_size=block_size,
            processes=expect_workers if master else processes,
            web=web,
            web_port=web_port,
            web_host=web_host,
            api_key=key,
            expected_hit_rate=band,
            on_progress=on_progress,
            master=(master_host, master_port) if master else None,
            token=token,
            metrics_port=metrics_port,
        )
    run_modes.send_out(out, export or (), otlp)
    run_view.show(result, out, as_json=json)
    run_view.require_valid(result, out)


def _band(expected: Path | None) -> dict[str, float] | None:
    """The forecast's hit rate as the live tab wants it; None without one to draw."""
    from loadkit.core.errors import InputError
    from loadkit.gate import read_json

    if expected is None:
        return None
    rate = read_json(expected).get("hit_rate") or {}
    band = {end: rate[end] for end in ("estimate", "low", "high") if rate.get(end) is not None}
    if len(band) < 3:
        raise InputError(
            "holds no estimate with its interval",
            where=expected,
            remedy="make it with `loadkit forecast ... -o F.json`",
        )
    return band
