"""How diverse a log is: prompts, shared prefixes, reuse over time, near replays."""

from loadkit.analysis.diversity.summary import Diversity, diversity

__all__ = ["Diversity", "diversity"]
