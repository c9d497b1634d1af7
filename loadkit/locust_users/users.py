"""The user classes. Each plays planned sessions; they differ in what joins a session's history.

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
        """What the history remembers as the assistant's answer to `turn`."""
        raise NotImplementedError


class ReplayUser(LoadkitUser):
    """Sends logged prompts again. A log's own replies come back where it has them, so that each
    prompt is what the log says and not what this server happened to answer."""

    abstract = False

    def reply_to_keep(self, session: SessionPlan, turn: Turn, live_reply: str) -> str:
        return live_reply if turn.recorded_reply is None else turn.recorded_reply


class CorpusUser(LoadkitUser):
    """Sends randomized single-turn prompts of a corpus; there is no later turn to remember for."""

    abstract = False

    def reply_to_keep(self, session: SessionPlan, turn: Turn, live_reply: str) -> str:
        return live_reply


class ConversationUser(LoadkitUser):
    """Holds append-only conversations: history is never rewritten, and the server's real reply
    joins it, or the recorded one when the plan says so."""

    abstract = False

    def reply_to_keep(self, session: SessionPlan, turn: Turn, live_reply: str) -> str:
        if session.replies == "recorded" and turn.recorded_reply is not None:
            return turn.recorded_reply
        return live_reply


USER_CLASSES: dict[str, type[LoadkitUser]] = {
    "replay": ReplayUser,
    "corpus": CorpusUser,
    "conversation": ConversationUser,
}
