"""Log formats in: one file a format, `read_log` picks the reader and returns a Trace."""

from loadkit.traces.registry import FORMATS, Log, read_log
from loadkit.traces.tokens import TokenRequest, TokenTraceBuilder, token_trace

__all__ = ["FORMATS", "Log", "TokenRequest", "TokenTraceBuilder", "read_log", "token_trace"]
