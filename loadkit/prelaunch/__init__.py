"""From a profile and a log to a verdict: forecast, run, gate and report, each stage kept when done."""

from loadkit.prelaunch.budget import Budget, check_budget, parse_budget
from loadkit.prelaunch.cost import Cost, cost_of
from loadkit.prelaunch.stages import Job, Outcome, prelaunch

__all__ = [
    "Budget",
    "Cost",
    "Job",
    "Outcome",
    "check_budget",
    "cost_of",
    "parse_budget",
    "prelaunch",
]
