"""What a traffic kind plans with, and what it hands back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from loadkit import corpora
from loadkit.core.errors import InputError
from loadkit.profiles import Distribution, Request
from loadkit.profiles.part import Wrap
from loadkit.traffic.draw import draw, draw_int
from loadkit.traffic.lengths import ExactLengths
from loadkit.traffic.plan import Message, SessionPlan, Turn
from loadkit.traffic.writing import Writer

PROMPT_JOINT = "\n\n"


@dataclass
class Planned:
    """Sessions in the order in which they arrive, without times: arrivals are given to them later.

    logged_s: seconds after the log's first row, one a session, where a log says. notes: what of a log
    is not sent, or not counted.
    """

    sessions: list[SessionPlan]
    wraps: int = 0
    truncations: int = 0
    dropped: int = 0
    logged_s: list[float] | None = None
    notes: tuple[str, ...] = ()


class Answer(NamedTuple):
    """How an answer is asked for."""

    max_tokens: int
    exact_output: bool
    leaves_after_s: float | None


@dataclass
class Planning:
    """The seeds, texts and answers of one traffic kind.

    label: names its sessions. where: the profile, for errors. openings: shared by the parts of a
    mixture, so that they stay different from each other too.
    """

    label: str
    seed: int
    request: Request
    where: str
    max_tokens: Distribution | None = None
    exact: ExactLengths | None = None
    openings: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.seed} {self.label}")
        # Its own generator, so that the texts are the same with users who leave and without.
        self._leaving = Random(f"{self.seed} {self.label} leaving")

    def writer(self, corpus: str) -> Writer:
        return Writer(corpora.load(corpus), self.rng, self.exact, self.openings)

    def answer(self, logged: int | None = None) -> Answer:
        """Draw how long an answer may be, and whether its user stays. What a log asked for is kept
        up to the profile's maximum."""
        lengths = self.max_tokens or self.request.max_tokens
        drawn = max(1, draw_int(lengths, self.rng))
        if logged is not None:
            drawn = max(1, min(logged, int(lengths.max)))
        return Answer(drawn, self.request.exact_output, self._leaves_after_s())

    def turn(self, messages: Iterable[Message], *, logged: int | None = None, **more: Any) -> Turn:
        """A turn with its answer drawn; other fields of Turn as they are."""
        answer = self.answer(logged)
        return Turn(
            tuple(messages),
            answer.max_tokens,
            exact_output=answer.exact_output,
            leaves_after_s=answer.leaves_after_s,
            **more,
        )

    def session(self, number: int, turns: Sequence[Turn], **more: Any) -> SessionPlan:
        """A session named by its number; it ends with the first turn that its user leaves."""
        settings = {"session": f"{self.label}-{number:05d}", "api": self.request.api} | more
        return SessionPlan(start_s=0.0, turns=until_left(turns), name=self.label, **settings)

    def single(
        self, number: int, messages: Sequence[Message], *, shared: int = 0, **more: Any
    ) -> SessionPlan:
        """A session of one turn; a text instead of messages where the profile asks completions."""
        front = self.text_front(messages[:shared])
        if front is None:
            return self.session(number, [self.turn(messages)], shared=shared, **more)
        prompt = PROMPT_JOINT.join(message["content"] for message in messages)
        return self.session(number, [self.turn((), prompt=prompt)], shared=len(front), **more)

    def text_front(self, messages: Sequence[Message]) -> str | None:
        """How a text prompt begins that has these messages first; None where messages are sent."""
        if self.request.api != "completions":
            return None
        return "".join(f"{message['content']}{PROMPT_JOINT}" for message in messages)

    def _leaves_after_s(self) -> float | None:
        leaving = self.request.leaving
        if leaving is None or self._leaving.random() >= leaving.share:
            return None
        return draw(leaving.after_s, self._leaving)

    def check_wrap(self, wrap: Wrap, distinct: int, requests: int) -> int:
        """How often the prompts have to be started again. InputError if that is not allowed."""
        if distinct == 0:
            raise InputError("no prompt is left to send", where=self.where)
        wraps = -(-requests // distinct) - 1
        if wraps and wrap == "refuse":
            raise InputError(
                f"{requests} requests from {distinct} distinct prompts would send prompts again, "
                "which measures replay, not production",
                where=self.where,
                remedy=f"ask for at most {distinct} requests, or set traffic.wrap: allow",
            )
        return wraps


def until_left(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns up to the first that is left, that one included."""
    for number, turn in enumerate(turns):
        if turn.leaves_after_s is not None:
            return tuple(turns[: number + 1])
    return tuple(turns)
