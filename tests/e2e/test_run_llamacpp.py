"""`loadkit run` against llama.cpp's server: a real engine of another make, with its own dialects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llamacpp import llamacpp_server
from plans import profile, session

from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.locust_users.launcher import run_profile
from loadkit.locust_users.preparing import Choices
from loadkit.traffic.plan import TrafficPlan

pytestmark = pytest.mark.e2e
PATIENT = {  # a machine that runs other tests besides may take long for an answer
    "request": {
        "max_tokens": {"distribution": "constant", "mean": 4, "max": 4, "source": "test"},
        "timeout_s": 60.0,
    },
    "max_duration_s": 120.0,
}


@pytest.fixture
def url(gguf: Path, tmp_path: Path) -> Iterator[str]:
    with llamacpp_server(gguf, tmp_path / "llama.log") as address:
        yield address


def test_a_conversation_on_llama_cpp_reports_its_cached_tokens(url: str, tmp_path: Path) -> None:
    """One user, two turns: the second prompt extends the first, so most of it is cached."""
    plan = TrafficPlan(
        "conversation",
        (session("s", "Name three colours of the rainbow, please.", "And three more?"),),
    )
    with ControlPlane(Endpoint.parse(url)) as control:
        before = control.prefix_counters()
        run = run_profile(
            profile({"loop": "closed", "users": 1}, **PATIENT), plan, url=url, out=tmp_path / "o"
        )
    assert before is not None
    assert before.source == "llamacpp"
    assert run["status"] == "ok"
    assert run["requests"]["ok"] == 2
    totals = run["totals"]
    assert totals["output_tokens"] == 8  # two replies of max_tokens 4
    assert totals["requests_without_cached_tokens"] == 0
    assert 0 < totals["cached_tokens"] < totals["prompt_tokens"]
    assert run["latency"]["ttft_s"]["n"] == 2


def test_usage_counters_and_prediction_agree_to_the_token_on_llama_cpp(
    url: str, tmp_path: Path
) -> None:
    """The client knows what it sent, the server how much was cached: the full split of a server that
    has none of its own. One slot; the second user's prompt shares a beginning with the first's."""
    from reference_server.weights import prepare_default_model

    texts = ("Name three colours of the rainbow, please.", "And three more?", "One more?")
    other = ("Name three colours of the rainbow, and an animal.", "And three more?")
    plan = TrafficPlan("conversation", (session("s", *texts), session("t", *other)))
    run = run_profile(
        profile({"loop": "closed", "users": 1}, **PATIENT),
        plan,
        url=url,
        out=tmp_path / "o",
        choices=Choices(tokenizer=str(prepare_default_model())),
    )
    found = run["reconciliation"]
    assert found["agrees"] is True, found
    assert found["usage_gap"]["unexplained"] == 0
    assert run["split"]["source"] == "attributed"
    assert run["split"]["continuation"] > run["split"]["shared"] > 0
    assert run["split"]["prompt_tokens"] == run["totals"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("slots", "host_mib", "unified", "setup"),
    [
        (1, 8192, False, "1 slot and a prompt cache in host memory"),
        (3, 0, False, "3 slots and "),
        (3, 64, True, "3 slots and "),
    ],
)
def test_several_users_find_in_slots_and_host_memory_what_is_predicted(
    gguf: Path, tmp_path: Path, slots: int, host_mib: int, unified: bool, setup: str
) -> None:
    """Four users at a time, six conversations that begin alike in pairs. With one slot the order of
    the first tokens tells all; with more, who got which one stays open, and a gate is not misled."""
    from reference_server.weights import prepare_default_model

    openings = ("Name three colours of the rainbow", "Tell me about the river")
    sessions = (
        session(f"{number}", f"{openings[number % 2]}, part {number}.", "And more?")
        for number in range(6)
    )
    log, options = tmp_path / "llama.log", {"context": 512, "host_mib": host_mib}
    with llamacpp_server(gguf, log, slots, unified=unified, **options) as url:
        run = run_profile(
            profile({"loop": "closed", "users": 4}, **PATIENT),
            TrafficPlan("conversation", tuple(sessions)),
            url=url,
            out=tmp_path / "o",
            choices=Choices(tokenizer=str(prepare_default_model())),
        )
    found = run["reconciliation"]
    assert run["requests"]["ok"] == 12, (run["requests"], run["errors"])
    assert found["agrees"] is True if slots == 1 else found["agrees"] is not False, found
    assert any(setup in note for note in run["notes"]), (run["notes"], found)
    assert found["usage"]["cached_tokens"] <= found["prediction_infinite_tokens"]
    assert found["prediction_capacity_blocks"] is None
