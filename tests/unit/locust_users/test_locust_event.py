"""What Locust's own statistics see of a request; in a process apart, since Locust patches its own."""

from __future__ import annotations

import json
import subprocess
import sys

FIRE = """
import json
from locust.env import Environment
from loadkit.locust_users.load import fire_request
from loadkit.runs.record import Record

environment, seen = Environment(), []
environment.events.request.add_listener(
    lambda name, response_time, exception, **_: seen.append(
        [name, round(response_time), exception and str(exception)]
    )
)
for more in (
    {"outcome": "ok", "completed_s": 3.5},
    {"outcome": "ok", "completed_s": 2.25, "phase": "warmup"},
    {"outcome": "http_error", "completed_s": 2.5, "status": 503, "error": "what the server said"},
    {"outcome": "not_sent", "error": "the run was stopped"},
):
    record = Record(session="s", turn=0, name="chat", worker=0, intended_s=2.0, **more)
    fire_request(environment, record, 0.0)
print(json.dumps(seen))
"""


def test_warmup_has_a_name_of_its_own_and_time_counts_from_the_intended_send() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FIRE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["chat", 1500, None],
        ["chat (warmup)", 250, None],
        ["chat", 500, "http_error 503"],
    ]
