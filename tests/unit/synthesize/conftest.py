"""The tokenizer of these tests."""

from __future__ import annotations

import pytest
from secret_chats import make_tokenizer

from loadkit.core.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer()
