"""A production log and two run folders, made once, and a server that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from prelaunch_world import World
from report_builders import make_run, production_records, staging_records, word_tokenizer

from loadkit.client.control import ModelCard
from loadkit.prelaunch import stages


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    base = tmp_path_factory.mktemp("prelaunch")
    tokenizer = word_tokenizer(base / "tokenizer")
    setting: dict[str, Any] = {"tokenizer": tokenizer, "capacity_blocks": 1500}
    make_run(base / "production", production_records(60, 3), **setting)
    make_run(base / "staging", staging_records(5, 40, 3), **setting, wraps=7)
    return World(tokenizer, base / "production", base / "staging")


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """`run_profile` copies the folders of `gives` in turn; an empty list interrupts it."""
    one = World(made.tokenizer, made.production, made.staging)
    card = ModelCard("SmolLM2-135M-Instruct", block_size=16, num_blocks=1500)

    def run_profile(profile: Any, plan: Any, *, out: Path, **asked: Any) -> None:
        one.asked.append(asked)
        one.sent.append(profile)
        if not one.gives:
            raise KeyboardInterrupt("2 of 60 requests kept")
        shutil.copytree(one.gives.pop(0), out)

    monkeypatch.setattr(stages, "run_profile", run_profile)
    monkeypatch.setattr(stages, "_card", lambda job, url: card)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return one
