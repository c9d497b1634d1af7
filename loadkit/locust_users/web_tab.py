"""The loadkit tab in Locust's web interface, and the live numbers behind it.

Locust's interface is a built React application without a way to add charts. What it has is
`extended_tabs`, a tab of ours among its own, with an empty panel. So Locust's own page is served
with one script of ours added, which draws into that panel from `loadkit/live`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import msgspec
from flask import Response, jsonify
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.web import WebUI

from loadkit.core.errors import InputError
from loadkit.locust_users.live import get_live
from loadkit.locust_users.live_view import ExpectedHitRate
from loadkit.locust_users.web_guard import WebGuard

TAB = {"key": "loadkit", "title": "loadkit"}
STATIC = {
    "tab.js": "text/javascript",
    "chart.js": "text/javascript",
    "dom.js": "text/javascript",
    "tab.css": "text/css",
}
PAGE_PARTS = (
    '<link rel="stylesheet" href="./loadkit/static/tab.css">'
    '<script type="module" src="./loadkit/static/tab.js"></script>'
)
REPORT_KEY = "loadkit_live"

logger = logging.getLogger(__name__)


def install(environment: Environment, expected_hit_rate: Mapping[str, float] | None = None) -> None:
    """Connect the live numbers, and the tab where this process has a web interface.

    Call it once from Locust's `init` event, in every process: master, worker or alone. Whoever
    sends requests then calls `get_live().observe(record)` for each that has finished.
    expected_hit_rate: {estimate, low, high}, token-weighted, 0..1, drawn as a band; InputError if
    it is something else.
    """
    expected = _expected(expected_hit_rate)
    _connect(environment)
    if environment.web_ui is not None:
        _protect(environment.web_ui, environment)
        _add_routes(environment.web_ui, environment, expected)
        _add_tab(environment.web_ui)


def _expected(given: Mapping[str, float] | None) -> ExpectedHitRate | None:
    if given is None:
        return None
    try:
        return msgspec.convert(dict(given), ExpectedHitRate)
    except msgspec.ValidationError as error:
        raise InputError(
            f"not {{estimate, low, high}}: {error}", where="expected_hit_rate"
        ) from error


def _connect(environment: Environment) -> None:
    """Start each test at nothing; carry what workers count to the master."""
    live = get_live()

    def on_report_to_master(client_id: str, data: dict[str, Any], **_: Any) -> None:
        data[REPORT_KEY] = live.take()

    def on_worker_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
        if REPORT_KEY in data:
            live.merge(data[REPORT_KEY])

    def forget(**_: Any) -> None:
        live.reset()

    environment.events.test_start.add_listener(forget)
    environment.events.reset_stats.add_listener(forget)
    if isinstance(environment.runner, WorkerRunner):
        environment.events.report_to_master.add_listener(on_report_to_master)
    if isinstance(environment.runner, MasterRunner):
        environment.events.worker_report.add_listener(on_worker_report)


def _protect(web_ui: WebUI, environment: Environment) -> None:
    """Loopback unless told otherwise, no debugger, no other origins.

    Runs before the interface starts to listen: Locust fires `init` first.
    """
    options = environment.parsed_options
    if not web_ui.host and not (options and options.web_host):
        web_ui.host = "127.0.0.1"
        logger.info("loadkit: the web interface listens on 127.0.0.1:%s only", web_ui.port)
    web_ui.app.debug = False
    web_ui.app.wsgi_app = WebGuard(web_ui.app.wsgi_app, web_ui.host, f"{_base(web_ui)}/")


def _add_routes(web_ui: WebUI, environment: Environment, expected: ExpectedHitRate | None) -> None:
    base = f"{_base(web_ui)}/loadkit"

    def live() -> Response:
        view = get_live().snapshot(expected)
        state = environment.runner.state if environment.runner else "missing"
        response = jsonify({**view, "state": state})
        response.headers["Cache-Control"] = "no-store"
        return response

    def static(name: str) -> Response:
        if name not in STATIC:
            return Response("no such file\n", 404, mimetype="text/plain")
        content = files("loadkit.locust_users").joinpath("static", name).read_bytes()
        return Response(content, mimetype=STATIC[name], headers={"Cache-Control": "no-cache"})

    for rule, name, view in (("live", "live", live), ("static/<name>", "static", static)):
        guarded = web_ui.auth_required_if_enabled(view)
        web_ui.app.add_url_rule(f"{base}/{rule}", f"loadkit.{name}", guarded)


def _add_tab(web_ui: WebUI) -> None:
    tabs = web_ui.template_args.get("extended_tabs") or []
    web_ui.template_args["extended_tabs"] = [*tabs, TAB]
    locusts_index = web_ui.app.view_functions["locust.index"]

    def index() -> Any:
        """Locust's page with our script; its redirects and errors as they are."""
        page = locusts_index()
        return page.replace("</body>", f"{PAGE_PARTS}</body>") if isinstance(page, str) else page

    web_ui.app.view_functions["locust.index"] = web_ui.auth_required_if_enabled(index)


def _base(web_ui: WebUI) -> str:
    """Path prefix of the interface (`--web-base-path`), "" without one."""
    return (web_ui.app.blueprints["locust"].url_prefix or "").rstrip("/")
