"""Mixtures: several kinds of traffic at one endpoint at once."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from loadkit.profiles.arrivals import OpenLoop
from loadkit.profiles.distribution import Distribution
from loadkit.profiles.kinds.agent import AgentTraffic
from loadkit.profiles.kinds.batch import BatchTraffic
from loadkit.profiles.kinds.conversation import ConversationTraffic
from loadkit.profiles.kinds.corpus import CorpusTraffic
from loadkit.profiles.kinds.document import DocumentTraffic
from loadkit.profiles.kinds.replay import ReplayTraffic
from loadkit.profiles.part import Part

SingleTraffic = Annotated[
    ConversationTraffic
    | CorpusTraffic
    | ReplayTraffic
    | AgentTraffic
    | DocumentTraffic
    | BatchTraffic,
    Field(discriminator="kind"),
]


class MixturePart(Part):
    """One kind of traffic in a mixture, with its share of the arrivals or arrivals of its own."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="label of its sessions in statistics"
    )
    weight: float | None = Field(
        None, gt=0, le=1e9, description="share of the mixture's sessions, beside other weights"
    )
    traffic: SingleTraffic
    arrivals: OpenLoop | None = Field(
        None, description="its own arrivals (then every part has its own, and its own count)"
    )
    max_tokens: Distribution | None = Field(
        None, description="length of its answers, instead of request.max_tokens"
    )
    source: str = Field(min_length=1, description="where the weight or the rate comes from")


class MixtureTraffic(Part):
    """Parts with weights under one arrival process, or parts with arrivals of their own.

    With weights each arrival is drawn to be of one part or another; `sessions` counts them all.
    """

    counted_by: ClassVar[str | None] = None
    kind: Literal["mixture"]
    sessions: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="sessions in the run; None where parts count their own",
    )
    parts: tuple[MixturePart, ...] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _consistent(self) -> MixtureTraffic:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError("two parts have the same name")
        own = [part.arrivals is not None for part in self.parts]
        if any(own) and not all(own):
            raise ValueError("either every part has `arrivals` of its own, or none")
        for part in self.parts:
            self._check_part(part, all(own))
        if all(own) == (self.sessions is not None):
            raise ValueError(
                "`sessions` would have no effect: parts with arrivals count their own"
                if all(own)
                else "`sessions` is missing: how many there are of all parts together"
            )
        return self

    def _check_part(self, part: MixturePart, own: bool) -> None:
        counted_by = part.traffic.counted_by
        count = None if counted_by is None else getattr(part.traffic, counted_by)
        if own and part.weight is not None:
            raise ValueError(f"{part.name}: `weight` would have no effect beside `arrivals`")
        if own and counted_by is not None and count is None:
            raise ValueError(f"{part.name}: `traffic.{counted_by}` is missing")
        if not own and part.weight is None:
            raise ValueError(f"{part.name}: `weight` is missing")
        if not own and count is not None:
            raise ValueError(
                f"{part.name}: `traffic.{counted_by}` would have no effect: weights and the "
                "mixture's `sessions` decide"
            )
