"""The engine rule `llamacpp` against llama.cpp's own server: cached tokens and slots, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from llamacpp import llamacpp_server

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.slots import simulate_slots
from loadkit.traces import TokenRequest, token_trace

pytestmark = pytest.mark.e2e
NUM_SLOTS = 3


@pytest.fixture
def url(gguf: Path, tmp_path: Path) -> Iterator[str]:
    with llamacpp_server(gguf, tmp_path / "llama.log", NUM_SLOTS) as address:
        yield address


def next_prompt(draw: random.Random, history: list[list[int]]) -> list[int]:
    """New, the same again, an earlier conversation gone on or cut short, or a common beginning."""
    system = list(range(100, 112))
    new = [draw.randrange(200, 2000) for _ in range(draw.randrange(1, 24))]
    if not history:
        return system + new
    before = draw.choice(history)
    kinds = [new, system + new, before, before + new, before[: draw.randrange(1, len(before) + 1)]]
    return draw.choice(kinds)[:200]


def test_predicted_cached_tokens_equal_the_servers(url: str) -> None:
    draw = random.Random(7)
    history: list[list[int]] = []
    sent: list[TokenRequest] = []
    answers: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(60):
            prompt = next_prompt(draw, history)
            body = {"prompt": prompt, "n_predict": 3, "temperature": 0, "return_tokens": True}
            answer = client.post("/completion", json=body).raise_for_status().json()
            answers.append(answer)
            sent.append(TokenRequest(prompt, reply=answer["tokens"][:-1], session=len(sent)))
            history.append(prompt + answer["tokens"])
    predicted = simulate_slots(reuse_of(token_trace(sent, 1), "llamacpp"), NUM_SLOTS)
    assert predicted.chosen.tolist() == [answer["id_slot"] for answer in answers]
    cached = [answer["timings"]["cache_n"] for answer in answers]
    assert predicted.requests.resident_tokens.tolist() == cached
    assert 0 < sum(cached) < sum(answer["tokens_evaluated"] for answer in answers)
