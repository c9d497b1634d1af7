"""`loadkit run PROFILE --url URL -o DIR`: traffic at an endpoint, measured into a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from loadkit.cli.options import Sending, argument, flag, grouped, option


@dataclass(frozen=True, kw_only=True)
class Load(Sending):
    """What a run may be told beside what all that send are told."""

    seed: Annotated[int | None, option("Instead of the profile's seed.", "N", min=0)] = None
    metrics_port: Annotated[
        int | None, option("Prometheus page of the run, on loopback.", "PORT", min=1, max=65535)
    ] = None

    def overrides(self) -> list[str]:
        """The profile's keys that options stand for."""
        return [] if self.seed is None else [f"seed={self.seed}"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Load from processes that are started elsewhere."""

    master: Annotated[bool, flag("--master", "Wait for workers that are started elsewhere.")] = (
        False
    )
    expect_workers: Annotated[int, option("How many the master waits for.", "N", min=1)] = 1
    worker: Annotated[
        bool, flag("--worker", "Be a worker of a master; needs no other argument.")
    ] = False
    master_host: Annotated[
        str, option("The master's address, to listen at or to call.", "HOST")
    ] = "127.0.0.1"
    master_port: Annotated[int, option("Its port.", "PORT", min=1, max=65535)] = 5557

    @property
    def address(self) -> tuple[str, int]:
        return self.master_host, self.master_port


@dataclass(frozen=True, kw_only=True)
class Browser:
    """The run in Locust's web interface."""

    web: Annotated[bool, flag("--web", "Start it in Locust's web interface; Ctrl-C ends it.")] = (
        False
    )
    web_port: Annotated[int, option("Its port.", "PORT", min=1, max=65535)] = 8089
    web_host: Annotated[
        str, option("Address of the web interface; it has no password.", "HOST")
    ] = "127.0.0.1"
    expected: Annotated[
        Path | None, option("Forecast to draw behind the live split (--web).", "FILE")
    ] = None


@grouped
def run(
    load: Load,
    workers: Workers,
    browser: Browser,
    profile: Annotated[str | None, argument("Bundled name, or a path.", "PROFILE")] = None,
    url: Annotated[
        str | None, option("The endpoint, such as http://127.0.0.1:8000.", "URL")
    ] = None,
    output: Annotated[Path | None, option("Run folder to make.", "DIR", "-o", "--output")] = None,
    export: Annotated[
        list[str] | None,
        option("Also write export-FORMAT.json: vllm or aiperf; repeatable.", "FORMAT"),
    ] = None,
    otlp: Annotated[
        str | None, option("Send the figures to an OpenTelemetry collector.", "URL")
    ] = None,
    recover: Annotated[
        Path | None, option("Make the run folder of a run that was killed.", "FOLDER")
    ] = None,
    json: Annotated[bool, flag("--json", "run.json on stdout, nothing else.")] = False,
) -> None:
    """Send a profile's traffic through Locust and measure timing and cached tokens."""
    from loadkit.cli import run_modes, run_view
    from loadkit.locust_users import recover as rescue

    if workers.worker:
        raise typer.Exit(run_modes.work_for(workers.address, load.key()))
    run_modes.check_exports(export or ())
    if output is not None and recover is not None:
        result = rescue.recover(recover, output)
    elif output is None or profile is None or url is None:
        needed = {} if recover else {"PROFILE": profile, "--url URL": url}
        raise run_modes.missing({**needed, "-o DIR": output})
    else:
        result = _sent(profile, url, output, load, workers, browser)
    run_modes.send_out(output, export or (), otlp)
    run_view.show(result, output, as_json=json)
    run_view.require_valid(result, output)


def _sent(
    profile: str, url: str, out: Path, load: Load, workers: Workers, browser: Browser
) -> dict[str, Any]:
    """Plan and send; run.json's content. What is wrong with a path or the URL is said first."""
    from loadkit.cli import run_modes, run_view
    from loadkit.cli.interrupt import interruptible
    from loadkit.locust_users.launcher import run_profile
    from loadkit.locust_users.preparing import Choices
    from loadkit.locust_users.recover import tell_of_abandoned
    from loadkit.runs.folder import check_free

    check_free(out)
    chosen, plan = load.planned(profile, url, load.overrides())
    choices = Choices(
        load.model,
        load.tokenizer,
        load.block_size,
        workers.expect_workers if workers.master else load.processes,
        web=browser.web,
        expected_hit_rate=_band(browser.expected),
        metrics_port=load.metrics_port,
    )
    tell_of_abandoned(out.parent)
    token = run_modes.token(workers.address, workers.expect_workers) if workers.master else None
    if browser.web:
        run_view.announce(browser.web_host, browser.web_port)
    with (
        interruptible("nothing was kept"),
        run_view.progress(chosen.name, plan.num_requests) as on_progress,
    ):
        return run_profile(
            chosen,
            plan,
            url=url,
            out=out,
            choices=choices,
            api_key=load.key(),
            on_progress=on_progress,
            web_at=(browser.web_host, browser.web_port),
            master=workers.address if workers.master else None,
            token=token,
        )


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
