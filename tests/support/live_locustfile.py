"""A locustfile without an endpoint: each user observes scripted records, fast, for the web tab.

Answers are a staging test that gets stuck: at first sessions with shared system prompts and a
growing history, later more and more of the same prompt again. $LIVE_SPEEDUP: seconds of the
script that pass in one second of the test. $LIVE_LOGIN: what `--web-login` needs to be complete.
"""

from __future__ import annotations

import os
import random
import time

from locust import User, constant, events, task

from loadkit.locust_users.live import get_live
from loadkit.locust_users.web_tab import install
from loadkit.runs.record import Record

SPEEDUP = float(os.environ.get("LIVE_SPEEDUP", "1"))
STARTED = [0.0]


@events.init.add_listener
def connect(environment, **_):
    install(environment, expected_hit_rate={"estimate": 0.31, "low": 0.27, "high": 0.36})
    if os.environ.get("LIVE_LOGIN"):
        environment.web_ui.app.secret_key = "only for this test"
        environment.web_ui.login_manager.user_loader(lambda _: None)


@events.test_start.add_listener
def start_clock(**_):
    STARTED[0] = time.monotonic()


def scripted(at_s: float, rng: random.Random) -> Record:
    """A request that ends at a time of the script. 1,000 prompt tokens, hits as the time has it."""
    replayed = rng.random() < min(0.75, max(0.0, (at_s - 60) / 150))
    own, shared = rng.randrange(0, 300), rng.randrange(100, 220)
    split = {"replay_cross_session": 990} if replayed else {"continuation": own, "shared": shared}
    ttft_s = rng.lognormvariate(-3.6 if replayed else -1.7 - own / 500, 0.35)
    sent_s = max(0.0, at_s - ttft_s - 0.2)
    return Record(
        session=f"s{rng.randrange(10**9)}",
        turn=0,
        name="chat",
        worker=0,
        outcome="cut" if rng.random() < 0.004 else "ok",
        intended_s=max(0.0, sent_s - 0.0006),
        sent_s=sent_s,
        first_token_s=sent_s + ttft_s,
        completed_s=at_s,
        prompt_tokens=1000,
        output_tokens=60,
        cached_tokens=sum(split.values()),
        server_split=split,
    )


class Scripted(User):
    wait_time = constant(0.05)

    def on_start(self):
        self.rng = random.Random(1)

    @task
    def observe(self):
        at_s = (time.monotonic() - STARTED[0]) * SPEEDUP
        get_live().observe(scripted(at_s, self.rng))
        self.environment.events.request.fire(
            request_type="POST", name="chat", response_time=1, response_length=1, exception=None
        )
