"""Append-only audit: which turns kept their prompt's prefix, what broke it, and what that cost."""

from loadkit.analysis.audit.audit import AppendOnly, append_only
from loadkit.analysis.audit.causes import CAUSES
from loadkit.analysis.audit.result import BrokenBy, Example

__all__ = ["CAUSES", "AppendOnly", "BrokenBy", "Example", "append_only"]
