"""Where the public traces are looked for: $LOADKIT_DATA, else shared/data beside the project."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("LOADKIT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
CONVERSATION = "mooncake_conversation_first30min.jsonl.gz"
SYNTHETIC = "mooncake_synthetic_trace.jsonl.gz"
WEKA = "weka_claude_code_40_sessions.jsonl.gz"


def missing(name: str) -> bool:
    return not (DATA / name).exists()
