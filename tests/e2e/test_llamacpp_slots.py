"""The engine rule `llamacpp` against llama.cpp's own server: cached tokens and slots, one by one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from llamacpp import llamacpp_server

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.host_cache import HostCache
from loadkit.analysis.simulate.slots import simulate_slots
from loadkit.traces import TokenRequest, token_trace

pytestmark = pytest.mark.e2e
NUM_SLOTS, NUM_PROMPTS = 3, 40


def next_prompt(draw: random.Random, history: list[list[int]]) -> list[int]:
    """New, the same again, an earlier conversation gone on or cut short, or a common beginning."""
    system = list(range(100, 112))
    new = [draw.randrange(200, 2000) for _ in range(draw.randrange(1, 24))]
    if not history:
        return system + new
    before = draw.choice(history)
    kinds = [new, system + new, before, before + new, before[: draw.randrange(1, len(before) + 1)]]
    return draw.choice(kinds)[:200]


@pytest.mark.parametrize(
    ("host_mib", "host", "unified"),
    [
        (0, None, False),
        (64, HostCache(), False),
        (64, HostCache(empties_idle=True), True),
    ],
    ids=["slots alone", "host memory", "host memory, one buffer"],
)
def test_predicted_cached_tokens_equal_the_servers(
    gguf: Path, tmp_path: Path, host_mib: int, host: HostCache | None, unified: bool
) -> None:
    draw = random.Random(7)
    history: list[list[int]] = []
    sent: list[TokenRequest] = []
    answers: list[dict[str, Any]] = []
    log, options = tmp_path / "llama.log", {"context": 512, "host_mib": host_mib}
    with (
        llamacpp_server(gguf, log, NUM_SLOTS, unified=unified, **options) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for _ in range(NUM_PROMPTS):
            prompt = next_prompt(draw, history)
            body = {"prompt": prompt, "n_predict": 3, "temperature": 0, "return_tokens": True}
            answer = client.post("/completion", json=body).raise_for_status().json()
            answers.append(answer)
            sent.append(TokenRequest(prompt, reply=answer["tokens"][:-1], session=len(sent)))
            history.append(prompt + answer["tokens"])
    reuse = reuse_of(token_trace(sent, 1), "llamacpp")
    predicted = simulate_slots(reuse, NUM_SLOTS, host=host)
    assert predicted.chosen.tolist() == [answer["id_slot"] for answer in answers]
    cached = [answer["timings"]["cache_n"] for answer in answers]
    assert predicted.requests.resident_tokens.tolist() == cached
    assert 0 < sum(cached) < sum(answer["tokens_evaluated"] for answer in answers)
