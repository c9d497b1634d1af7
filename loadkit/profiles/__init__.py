"""Profiles: a runnable workload as one YAML file, every figure with its source.

A profile is read from a name of a bundled folder or from a path, checked by pydantic (unknown keys
refused), and can be changed by `--set a.b=c`. YAML is read safely, without aliases, up to 1 MiB.
"""

from loadkit.profiles.arrivals import ClosedLoop, Diurnal, OpenLoop, Ramp, Stage
from loadkit.profiles.distribution import Distribution
from loadkit.profiles.goals import Expected, Slo
from loadkit.profiles.kinds import (
    AgentTraffic,
    BatchTraffic,
    ConversationTraffic,
    CorpusTraffic,
    DocumentTraffic,
    MixturePart,
    MixtureTraffic,
    ReplayTraffic,
    SingleTraffic,
    Traffic,
)
from loadkit.profiles.loading import apply_setting, find, load, names, schema
from loadkit.profiles.profile import Profile
from loadkit.profiles.request import Leaving, Request, Retries
from loadkit.profiles.sharing import SystemPrompts
from loadkit.profiles.warming import Priming
from loadkit.profiles.yaml_file import MAX_PROFILE_BYTES, data_root, load_yaml

__all__ = [
    "MAX_PROFILE_BYTES",
    "AgentTraffic",
    "BatchTraffic",
    "ClosedLoop",
    "ConversationTraffic",
    "CorpusTraffic",
    "Distribution",
    "Diurnal",
    "DocumentTraffic",
    "Expected",
    "Leaving",
    "MixturePart",
    "MixtureTraffic",
    "OpenLoop",
    "Priming",
    "Profile",
    "Ramp",
    "ReplayTraffic",
    "Request",
    "Retries",
    "SingleTraffic",
    "Slo",
    "Stage",
    "SystemPrompts",
    "Traffic",
    "apply_setting",
    "data_root",
    "find",
    "load",
    "load_yaml",
    "names",
    "schema",
]
