from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.tokenizer import Tokenizer

WriteLog = Callable[..., Path]

CHAT_TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Write rows (JSON values, or text as it stands) as a log file, one a line."""

    def write(*rows: Any, name: str = "log.jsonl") -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    """A tokenizer with one token a character (id: its place in the alphabet below)."""
    from tokenizers import Regex
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    alphabet = "abcdefghijklmnopqrstuvwxyz<>?"
    vocabulary = {letter: place for place, letter in enumerate(alphabet)}
    backend = Backend(WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = Split(Regex("."), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    fast.chat_template = CHAT_TEMPLATE
    return Tokenizer(fast, "letters")
