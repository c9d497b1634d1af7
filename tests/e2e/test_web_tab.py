"""Locust's interface with the loadkit tab: what a browser shows, and who may ask."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from scripted import scripted_server
from test_wire import CONTEXT
from waiting import GENEROUS_S, until
from web_ui import browse, free_port, locust_with_scripted_records, wait_until_up

from loadkit.locust_users.launcher import make_work_folder
from loadkit.locust_users.process import LocustProcess
from loadkit.locust_users.settings import Settings
from loadkit.traffic.plan import SessionPlan, TrafficPlan, Turn

pytestmark = pytest.mark.e2e

SYSTEM = {"role": "system", "content": "You help with bread and answer in short."}  # 8 words
SWARM = {"user_count": "2", "spawn_rate": "100"}


def asking(session: str, start_s: float, *questions: str) -> SessionPlan:
    turns = [
        Turn((SYSTEM, {"role": "user", "content": questions[0]}), max_tokens=8),
        *(Turn(({"role": "user", "content": text},), max_tokens=8) for text in questions[1:]),
    ]
    return SessionPlan(session, start_s, tuple(turns), name="chat")


# Prompt tokens of the scripted server are words; cached are leading messages it had before.
#   a: 8 + 2, nothing known                      miss 10
#   b, c: the same prompt                        replay 10 each
#   d: the same system prompt, another question  shared 8, miss 2
#   d, next turn: 10 + answer of 8 + 2           continuation 10, miss 10
# Together 60: replay 20, shared 8, continuation 10, miss 22. Hit rate 38/60, organic 18/40.
PLAN = TrafficPlan(
    "conversation",
    (
        asking("a", 0.0, "Why rye?"),
        asking("b", 0.4, "Why rye?"),
        asking("c", 0.8, "Why rye?"),
        asking("d", 1.2, "Why salt?", "How much?"),
    ),
)


def test_clicking_start_shows_the_split_of_a_real_run_in_the_tab(tmp_path: Path):
    port = free_port()
    with scripted_server(tmp_path, "--tokens", "8") as server:
        settings = Settings(url=server.url, model="scripted", loop="open", web=True, users=1)
        work = make_work_folder(tmp_path / "run", PLAN, settings)
        work.write_context(CONTEXT)
        with LocustProcess(work, settings, key=None, web=("127.0.0.1", port)) as locust:
            url = f"http://127.0.0.1:{port}/"
            wait_until_up(url, locust._process, work.log)
            seen = browse(url, "--requests", "5")

    assert seen["complaints"] == []
    assert seen["hosts"] == ["127.0.0.1"], "the page asks nobody else"
    assert seen["values"] == {"hit-rate": "63.3%", "organic": "45.0%", "requests": "5"}
    assert {cause: cells[:2] for cause, cells in seen["causes"].items()} == {
        "continuation": ["10", "16.7%"],
        "shared": ["8", "13.3%"],
        "replay": ["20", "33.3%"],
        "miss": ["22", "36.7%"],
    }
    assert seen["drawn"] == [
        "lk-part-continuation",
        "lk-part-miss",
        "lk-part-replay",
        "lk-part-shared",
    ]
    assert seen["pieces"] == ["Continuation 16.7%", "Shared 13.3%", "Replay 33.3%", "Miss 36.7%"]
    assert "replay_mirage" in seen["warnings"]
    assert "estimated" in seen["source"], "the scripted server does not split by cause"
    assert "ok5" in seen["outcomes"]
    assert seen["band"] == 0, "nothing is expected, so no band"
    ttft = {cause: cells[2] for cause, cells in seen["causes"].items()}
    assert all(text.endswith(" ms") for text in ttft.values()), "each cause leads one request"


def test_the_tab_of_loadkit_run_and_the_run_folder_say_the_same(tmp_path: Path):
    """Two load workers and a master, started in the browser, ended with Ctrl-C."""
    port, out = free_port(), tmp_path / "run"
    options = ["--web", "--web-port", str(port), "--processes", "2", "-o", str(out), "--json"]
    for setting in ("traffic.requests=12", "traffic.distinct_prompts=3"):
        options += ["--set", setting]
    log = tmp_path / "run.log"
    with scripted_server(tmp_path) as server, log.open("wb") as errors:
        command = [str(Path(sys.executable).with_name("loadkit")), "run", "replay-smoke"]
        with subprocess.Popen(
            [*command, "--url", server.url, *options], stdout=subprocess.PIPE, stderr=errors
        ) as run:
            try:
                url = f"http://127.0.0.1:{port}/"
                wait_until_up(url, run, log)
                seen = browse(url, "--requests", "12")
                run.send_signal(signal.SIGINT)
                printed, _ = run.communicate(timeout=GENEROUS_S)
            finally:
                run.kill()
    assert run.returncode == 0, log.read_text()
    written = json.loads((out / "run.json").read_text())
    assert json.loads(printed) == written
    usage = written["reconciliation"]["usage"]
    assert seen["complaints"] == []
    assert seen["values"]["requests"] == "12"
    assert seen["values"]["hit-rate"] == f"{usage['cached_tokens'] / usage['prompt_tokens']:.1%}"
    assert "replay_mirage" in seen["warnings"]


def test_the_tab_follows_the_dark_theme_fits_a_phone_and_draws_the_expected_band(tmp_path: Path):
    with locust_with_scripted_records(tmp_path) as (client, _):
        client.post("/swarm", data=SWARM)
        wait_for(client, "/loadkit/live", lambda view: view["requests"] >= 1)
        seen = browse(str(client.base_url), "--started", "--dark", "--width", "390")
    assert seen["complaints"] == []
    assert seen["theme"] == "dark"
    assert seen["page_width"] == 390, "nothing reaches over the edge"
    assert seen["values"]["expected"] == "31.0%"
    assert seen["band"] == 1
    assert seen["source"] == "Split by the server"


def test_the_master_shows_exactly_what_its_workers_counted(tmp_path: Path):
    master_port = str(free_port())
    ports = ["--master-bind-port", master_port, "--master-port", master_port]
    with locust_with_scripted_records(tmp_path, "--processes", "2", *ports) as (client, _):
        wait_for(client, "/worker-count", lambda answer: answer["worker_count"] == 2)
        client.post("/swarm", data=SWARM)
        wait_for(client, "/loadkit/live", lambda view: view["requests"] >= 60)
        client.post("/stop")
        wait_for(client, "/loadkit/live", lambda view: view["state"] == "stopped")
        # Locust's counts and ours travel in the same messages, but Locust keeps its answer for 2 s.
        time.sleep(2.5)
        view = client.get("/loadkit/live").json()
        total = client.get("/stats/requests").json()["stats"][-1]["num_requests"]
    assert view["requests"] == total
    assert view["prompt_tokens"] == 1000 * total
    assert sum(view["totals"][part] for part in ("replay", "continuation", "shared", "miss")) == (
        1000 * total
    )


def wait_for(client: httpx.Client, path: str, is_there: Callable[[Any], bool]) -> None:
    until(lambda: is_there(client.get(path).json()), f"{path} never became what was waited for")


def test_it_listens_on_loopback_unless_told_otherwise(tmp_path: Path):
    with locust_with_scripted_records(tmp_path) as (client, pid):
        listening = [
            connection.laddr
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert [(at.ip, at.port) for at in listening] == [("127.0.0.1", client.base_url.port)]


def test_other_pages_can_neither_start_nor_stop_nor_read_anything(tmp_path: Path):
    with locust_with_scripted_records(tmp_path) as (client, _):
        evil = {"Origin": "https://evil.example"}
        rebound = {"Host": "evil.example"}
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        for headers in (evil, rebound):
            assert client.post("/swarm", data=SWARM, headers=headers).status_code == 403
            assert client.get("/loadkit/live", headers=headers).status_code == 403
            assert client.get("/loadkit/static/tab.js", headers=headers).status_code == 403
            assert client.get("/stats/requests", headers=headers).status_code == 403
            assert client.get("/", headers=headers).status_code == 403
            assert client.post("/stop", headers=headers).status_code == 403
        assert client.get("/stats/reset", headers=image).status_code == 403
        assert client.get("/loadkit/live").json()["state"] == "ready", "nothing was started"

        own = {"Origin": f"http://127.0.0.1:{client.base_url.port}"}
        assert client.post("/swarm", data=SWARM, headers=own).json()["success"] is True
        for path in ("/", "/loadkit/live", "/stats/requests", "/no-such-page"):
            names = client.get(path, headers=own).headers
            assert not [name for name in names if name.startswith("access-control")], path


def test_only_the_tabs_own_files_are_served(tmp_path: Path):
    with locust_with_scripted_records(tmp_path) as (client, _):
        assert (
            client.get("/loadkit/static/chart.js")
            .headers["content-type"]
            .startswith("text/javascript")
        )
        for name in ("../live.py", "..%2Flive.py", "%2e%2e/live.py", "nothing.js"):
            assert client.get(f"/loadkit/static/{name}").status_code == 404


def test_behind_a_login_our_routes_ask_for_it_too(tmp_path: Path):
    with locust_with_scripted_records(tmp_path, "--web-login", LIVE_LOGIN="1") as (client, _):
        for path in ("/loadkit/live", "/loadkit/static/tab.js", "/"):
            answer = client.get(path)
            assert answer.status_code == 302, path
            assert "/login" in answer.headers["location"]


def test_a_base_path_goes_before_our_routes_too(tmp_path: Path):
    with locust_with_scripted_records(tmp_path, "--web-base-path", "/load", path="/load") as (
        client,
        _,
    ):
        assert client.get("/loadkit/live").json()["schema"] == "loadkit.live/1"
        seen = browse(f"{client.base_url}", "--requests", "1")
    assert seen["complaints"] == []
    assert seen["requests"] >= 1
