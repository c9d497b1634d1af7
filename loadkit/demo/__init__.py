"""The demonstration: one log, one endpoint, one verdict, on a server started for it."""

from loadkit.demo.demo import DemoResult, Show, run_demo

__all__ = ["DemoResult", "Show", "run_demo"]
