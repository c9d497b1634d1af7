"""The traffic kinds, one a file: what to send."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from loadkit.profiles.kinds.agent import AgentTraffic
from loadkit.profiles.kinds.batch import BatchTraffic
from loadkit.profiles.kinds.conversation import ConversationTraffic
from loadkit.profiles.kinds.corpus import CorpusTraffic
from loadkit.profiles.kinds.document import DocumentTraffic
from loadkit.profiles.kinds.mixture import MixturePart, MixtureTraffic, SingleTraffic
from loadkit.profiles.kinds.replay import ReplayTraffic

Traffic = Annotated[
    ConversationTraffic
    | CorpusTraffic
    | ReplayTraffic
    | AgentTraffic
    | DocumentTraffic
    | BatchTraffic
    | MixtureTraffic,
    Field(discriminator="kind"),
]

__all__ = [
    "AgentTraffic",
    "BatchTraffic",
    "ConversationTraffic",
    "CorpusTraffic",
    "DocumentTraffic",
    "MixturePart",
    "MixtureTraffic",
    "ReplayTraffic",
    "SingleTraffic",
    "Traffic",
]
