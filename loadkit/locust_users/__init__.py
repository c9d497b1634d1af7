"""Traffic through Locust: the only package that imports locust.

In a locustfile of your own:

    from loadkit.locust_users import ConversationUser

    class MyChat(ConversationUser):
        profile = "chat-assistant"
        host = "http://127.0.0.1:8000"

The launcher's modules belong to the parent process and import no locust; so this file does not
either, and the user classes are found here only when asked for.
"""

from __future__ import annotations

from typing import Any

USERS = ("LoadkitUser", "ReplayUser", "CorpusUser", "ConversationUser", "AgentUser")


def __getattr__(name: str) -> Any:
    if name in USERS:
        from loadkit.locust_users import own, users

        own.connect_once()
        return getattr(users, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
