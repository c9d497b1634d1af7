from __future__ import annotations

import pytest
from log_samples import make_letters

from loadkit.core.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    return make_letters()
