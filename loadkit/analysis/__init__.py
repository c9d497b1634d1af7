"""The exact pass over a log: reuse by cause, hit rate at every capacity, append-only audit."""

from loadkit.analysis.per_request import PerRequest, per_request
from loadkit.analysis.summary import Analysis, analyze

__all__ = ["Analysis", "PerRequest", "analyze", "per_request"]
