"""Append-only audit: which turns kept their prompt's prefix, what broke it, and what that cost."""

from loadkit.analysis.audit.audit import AppendOnly, BrokenBy, Example, append_only
from loadkit.analysis.audit.causes import CAUSES

__all__ = ["CAUSES", "AppendOnly", "BrokenBy", "Example", "append_only"]
