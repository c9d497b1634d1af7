"""From a log to production: the hit rate to expect, or a refusal that says what is missing."""

from loadkit.forecast.model import Forecast, LogFacts, Scenario
from loadkit.forecast.predict import forecast

__all__ = ["Forecast", "LogFacts", "Scenario", "forecast"]
