"""The user classes: each plays sessions of a profile until none is left.

A request goes through loadkit's own streaming client, never through Locust's: Locust's is 100 ms
late on streams and counts a cut stream as a success.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, ClassVar, Protocol

from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from loadkit.locust_users.dispatcher import Dispatcher
from loadkit.traffic.plan import SessionPlan, Turn


def _copied(function: Any) -> Any:
    copy = FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.locust_task_weight = function.locust_task_weight  # type: ignore[attr-defined]
    return copy


class Plays(Protocol):
    """Where a user class gets its sessions from: the working folder, or a master."""

    def dispatcher(self, environment: Environment) -> Dispatcher: ...


class LoadkitUser(User):  # type: ignore[misc]  # locust has no types
    """Plays sessions of a plan until none is left.

    Open loop: one such user a worker starts every session at its planned time, several at once.
    Closed loop: each user plays one session after the other.

    In a locustfile of your own, derive a class and name its profile; `host` and the other options
    are as `loadkit run` has them. kinds: traffic that it plays (None: any). `load` is set when a
    test starts.
    """

    abstract = True
    profile: ClassVar[str | None] = None
    overrides: ClassVar[tuple[str, ...]] = ()
    model: ClassVar[str | None] = None
    tokenizer: ClassVar[str | None] = None
    block_size: ClassVar[int | None] = None
    kinds: ClassVar[tuple[str, ...] | None] = None
    load: ClassVar[Plays | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        """A task of its own for each class: a tag is put on a task, and must not reach others."""
        super().__init_subclass__(**options)
        play = LoadkitUser.__dict__["play_sessions"]
        cls.tasks = [_copied(one) if one.__code__ is play.__code__ else one for one in cls.tasks]

    @task  # type: ignore[untyped-decorator]
    def play_sessions(self) -> None:
        if self.load is not None:
            self.load.dispatcher(self.environment).drive(self.play)
        raise StopUser

    def play(self, session: SessionPlan, intended_at: float) -> None:
        """Play one session whose first turn is meant for the monotonic time `intended_at`."""
        assert self.load is not None
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
    kinds = ("replay",)


class CorpusUser(LoadkitUser):
    """Sends randomized prompts of a corpus: profiles of kind `corpus`, `document` or `batch`."""

    abstract = True
    kinds = ("corpus", "document", "batch")


class ConversationUser(LoadkitUser):
    """Holds append-only conversations: profiles of kind `conversation` or `document`."""

    abstract = True
    kinds = ("conversation", "document")


class AgentUser(LoadkitUser):
    """Works as an agent does, with tools, sub-agents and compaction: profiles of kind `agent`."""

    abstract = True
    kinds = ("agent",)
