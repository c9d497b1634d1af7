"""The user classes: each plays sessions of a profile until none is left.

A request goes through loadkit's own streaming client, never through Locust's: Locust's is 100 ms
late on streams and counts a cut stream as a success.
"""

from __future__ import annotations

from typing import ClassVar

from locust import User, task
from locust.exception import StopUser

from loadkit.locust_users.load import Load
from loadkit.traffic.plan import SessionPlan, Turn


class LoadkitUser(User):  # type: ignore[misc]  # locust has no types
    """Plays sessions of the plan until none is left. `load` is set by the locustfile.

    Open loop: one such user a worker starts every session at its planned time, several at once.
    Closed loop: each user plays one session after the other.
    """

    abstract = True
    load: ClassVar[Load]

    @task  # type: ignore[untyped-decorator]
    def play_sessions(self) -> None:
        self.load.dispatcher(self.environment).drive(self.play)
        raise StopUser

    def play(self, session: SessionPlan, intended_at: float) -> None:
        """Play one session whose first turn is meant for the monotonic time `intended_at`."""
        lane = self.load.dispatcher(self.environment).worker.lane
        lane.play(session, intended_at, self.reply_to_keep)

    def reply_to_keep(self, session: SessionPlan, turn: Turn, live_reply: str) -> str:
        """What the history remembers as the assistant's answer to `turn`: what the server said, or
        the recorded reply where the plan says so."""
        if session.replies == "recorded" and turn.recorded_reply is not None:
            return turn.recorded_reply
        return live_reply


class PlannedUser(LoadkitUser):
    """The user of `loadkit run`: plays whatever the plan holds."""

    abstract = False


class ReplayUser(LoadkitUser):
    """Sends logged or drawn prompts again: profiles of kind `replay`."""

    abstract = True


class CorpusUser(LoadkitUser):
    """Sends randomized prompts of a corpus: profiles of kind `corpus`, `document` or `batch`."""

    abstract = True


class ConversationUser(LoadkitUser):
    """Holds append-only conversations: profiles of kind `conversation` or `document`."""

    abstract = True


class AgentUser(LoadkitUser):
    """Works as an agent does, with tools, sub-agents and compaction: profiles of kind `agent`."""

    abstract = True
