"""Rates of a log too large for memory, from a sample of its blocks taken while it is read."""

from loadkit.analysis.sampling.estimate import SampledAnalysis, analyze_sampled

__all__ = ["SampledAnalysis", "analyze_sampled"]
