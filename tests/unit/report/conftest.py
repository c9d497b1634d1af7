"""Run folders made once for all report tests."""

from __future__ import annotations

from typing import Any

import pytest
from report_builders import (
    BLOCK_SIZE,
    Example,
    make_run,
    production_records,
    staging_records,
    word_tokenizer,
)

from loadkit.core.tokenizer import load_tokenizer
from loadkit.forecast import forecast
from loadkit.gate import decide
from loadkit.traces import read_log


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    base = tmp_path_factory.mktemp("example")
    tokenizer = word_tokenizer(base / "tokenizer")
    setting: dict[str, Any] = {"tokenizer": tokenizer, "capacity_blocks": 1500}
    make_run(base / "production", production_records(30, 3), **setting)
    staging = make_run(base / "staging", staging_records(5, 40, 3), **setting, wraps=7)
    log = read_log(
        [base / "production" / "sent.jsonl.gz"],
        tokenizer=load_tokenizer(tokenizer),
        block_size=BLOCK_SIZE,
    )
    expected = forecast(log.trace, 1.0, 1500).to_dict()
    return Example(
        tokenizer,
        base / "staging",
        base / "production",
        expected,
        decide(staging, expected).to_dict(),
    )
