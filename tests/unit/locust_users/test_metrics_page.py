"""loadkit's own Prometheus page: what a scraper reads out of the live view."""

from __future__ import annotations

import pytest
from live_records import finished
from prometheus_client.parser import text_string_to_metric_families

from loadkit.locust_users.live import Live
from loadkit.locust_users.metrics_page import metrics_page


def samples(live: Live) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics_page(live.snapshot()).decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_counts_tokens_and_times_by_cause() -> None:
    live = Live()
    live.observe(finished("a", cached_tokens=0))
    live.observe(finished("b", session="b", cached_tokens=40))
    live.observe(finished("c", session="c", outcome="cut"))
    found = samples(live)
    assert found["loadkit_requests_total", "ok"] == 2
    assert found["loadkit_requests_total", "cut"] == 1
    assert found["loadkit_prompt_tokens_total", "shared"] == 40
    assert found["loadkit_prompt_tokens_total", "miss"] == 160
    assert found["loadkit_prompt_tokens_total", "not_reported"] == 100
    assert found["loadkit_hit_rate",] == pytest.approx(0.2)
    assert found["loadkit_ttft_seconds", "miss", "0.5"] == pytest.approx(0.25, rel=1e-3)


def test_before_the_first_request_there_are_no_rates() -> None:
    found = samples(Live())
    assert ("loadkit_hit_rate",) not in found
    assert found["loadkit_prompt_tokens_total", "miss"] == 0


def test_what_warms_the_cache_up_is_not_counted() -> None:
    live = Live()
    live.observe(finished("a", phase="warmup"))
    assert ("loadkit_requests_total", "ok") not in samples(live)
