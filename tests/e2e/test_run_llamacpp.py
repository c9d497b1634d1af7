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
            profile({"loop": "closed", "users": 1}), plan, url=url, out=tmp_path / "o"
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
        profile({"loop": "closed", "users": 1}),
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
