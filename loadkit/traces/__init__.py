"""Log formats in: one file a format, `read_log` picks the reader and returns a Trace."""

from loadkit.traces.hashed_out import write_hashed
from loadkit.traces.keyed import read_key
from loadkit.traces.reading import Progress
from loadkit.traces.registry import FORMATS, Log, read_log, read_trace
from loadkit.traces.tokens import TokenRequest, TokenTraceBuilder, token_trace

__all__ = [
    "FORMATS",
    "Log",
    "Progress",
    "TokenRequest",
    "TokenTraceBuilder",
    "read_key",
    "read_log",
    "read_trace",
    "token_trace",
    "write_hashed",
]
