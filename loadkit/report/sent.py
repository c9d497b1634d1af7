"""What the sent log itself says: what broke append-only, who shares what, how diverse it is.

`loadkit run` leaves it in run.json. Only for text, or a folder of before that was so, the log is
read again with the run's tokenizer; nothing is sent. Without either the report says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from loadkit.core.errors import LoadkitError


class Sent(msgspec.Struct, frozen=True):
    """append_only and diversity as in `loadkit analyze --json`; both None with `why_not`."""

    label: str
    append_only: dict[str, Any] | None
    diversity: dict[str, Any] | None
    why_not: str | None = None


def sent(label: str, folder: Path, run: dict[str, Any], *, show_text: bool) -> Sent:
    """What is known of sent.jsonl.gz of a run folder; never raises for what is missing."""
    log, tokenizer, size = folder / "sent.jsonl.gz", run.get("tokenizer"), run.get("block_size")
    found = run
    if show_text or not (run.get("append_only") and run.get("diversity")):
        own_ids = (run.get("prompt_ids") or {}).get("source") == "server"
        if not size or not (tokenizer or own_ids):
            return Sent(label, None, None, "the run knew no tokenizer or block size")
        if not log.is_file():
            return Sent(label, None, None, "the run folder has no sent.jsonl.gz")
        try:
            name = str(tokenizer["name"]) if tokenizer else None
            found = _analyze(log, name, int(size), show_text)
        except (LoadkitError, OSError, ValueError, EOFError) as error:
            return Sent(label, None, None, f"the sent log was not read again: {error}")
    return Sent(label, found["append_only"], found["diversity"])


def _analyze(log: Path, tokenizer: str | None, block_size: int, show_text: bool) -> dict[str, Any]:
    from loadkit.analysis import analyze
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.traces import read_log

    served = None if tokenizer is None else load_tokenizer(tokenizer)
    trace = read_log([log], format="openai", tokenizer=served, block_size=block_size).trace
    return analyze(trace, show_text=show_text).to_dict()
