"""What `locust -f` loads in a worker whose master is elsewhere: its share comes over the wire."""

from __future__ import annotations

from typing import Any

from locust import events
from locust.env import Environment

from loadkit.locust_users import web_tab
from loadkit.locust_users.remote import RemoteWorker
from loadkit.locust_users.users import PlannedUser
from loadkit.locust_users.wire import Wire

__all__ = ["PlannedUser"]


@events.init.add_listener  # type: ignore[untyped-decorator]
def connect(environment: Environment, **_: Any) -> None:
    web_tab.install(environment)
    PlannedUser.load = RemoteWorker(environment, Wire()).load_for("")
