"""What another hit rate does to TTFT, on runs whose server is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadkit.core.trace import FloatArray
from loadkit.gate.requests import Requests, read_requests
from loadkit.report.chart_fit import fit_chart
from loadkit.report.findings import fit_table
from loadkit.report.fit import Rate, fit
from loadkit.report.step_server import Traffic, _serve
from loadkit.report.tables import fit_answer, fit_basis
from loadkit.report.traffic import answered, traffic_of, uncached_at
from loadkit.runs.tables import REQUESTS_SCHEMA

STEP_S, TOKEN_S, TURNS, THINK_S, OUTPUT = 0.05, 0.002, 3, 0.4, 20
ZERO = dict.fromkeys(("replay_same_session", "replay_cross_session", "continuation", "shared"), 0)


def written(base: Path, rows: list[dict[str, Any]]) -> Requests:
    base.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(
        [{"outcome": "ok", "main_cause": "miss", **ZERO} | r for r in rows], schema=REQUESTS_SCHEMA
    )
    pq.write_table(table, base / "requests.parquet")
    return read_requests(base)


def served(
    uncached: FloatArray, prompt: FloatArray, noise: float, seed: int
) -> list[dict[str, Any]]:
    """Four users with a session of three turns after another, on the step server: a closed loop."""
    count, users = len(prompt), 4
    order = np.arange(count)
    session, turn = order // TURNS, order % TURNS
    before = np.where(turn > 0, order - 1, (session - users) * TURNS + TURNS - 1)
    sent_s = np.where(before < 0, 0.01 * session, 0.0)
    made = Traffic(sent_s, uncached, np.full(count, float(OUTPUT)), np.maximum(before, -1),
                   np.where(turn > 0, THINK_S, 0.001))  # fmt: skip
    sent, first = _serve(*made[:3], made.after, made.think_s, STEP_S, TOKEN_S)
    completed = first + (OUTPUT - 1) * STEP_S  # of the last of each user, for which nobody waits
    followed = made.after >= 0
    completed[made.after[followed]] = (sent - made.think_s)[followed]
    ttft = first - sent
    ttft = ttft * np.exp(noise * np.random.default_rng(seed).normal(size=count))
    return [
        {"session": f"s{session[n]:03}", "turn": int(turn[n]), "prompt_tokens": int(prompt[n]),
         "cached_tokens": int(prompt[n] - uncached[n]), "output_tokens": OUTPUT,
         "sent_s": float(sent[n]), "ttft_s": float(ttft[n]), "completed_s": float(completed[n])}
        for n in order
    ]  # fmt: skip


def drawn(share: float, seed: int = 5) -> tuple[FloatArray, FloatArray]:
    """(uncached, prompt) of 40 sessions that leave about this share uncached."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(150, 500, 40 * TURNS).astype(float)
    spread = np.clip(share * rng.choice([0.2, 1.0, 1.8], len(prompt)), 0.01, 0.9)
    spread[::12] = 0.99  # a cold start now and then
    return np.maximum(1, np.rint(prompt * spread)), prompt


def test_the_server_is_found_again_and_another_rate_foretold(tmp_path: Path) -> None:
    uncached, prompt = drawn(0.15)
    other = uncached_at(0.4, prompt, uncached)
    assert other is not None
    truth = [row["ttft_s"] for row in served(np.rint(other), prompt, 0.0, 0)]
    requests = written(tmp_path, served(uncached, prompt, 0.1, 1))
    found = fit("Staging", requests, Rate("Expected", 0.4, 0.35, 0.45), closed=True)
    assert found.why_not is None
    assert found.step_s == pytest.approx(STEP_S, rel=0.1)
    assert found.slope_s == pytest.approx(TOKEN_S, rel=0.1)
    assert found.answer is not None
    for share in (50, 90):
        at, true = share - 1, float(np.quantile(truth, share / 100))
        assert found.answer.ttft_s[at] == pytest.approx(true, rel=0.15)
        assert found.answer.low_s[at] < true < found.answer.high_s[at]
    assert "at 40% (expected) the median TTFT of these requests would be about" in fit_answer(found)
    table = fit_table(found)
    assert table is not None
    assert [row.name for row in table.rows][1:3] == ["model at 77%", "model at 40%"]
    assert "line-expected" in fit_chart(found, 460)


def test_it_is_said_how_many_requests_tell_what_a_token_costs(tmp_path: Path) -> None:
    _, prompt = drawn(0.3)
    share = np.full(len(prompt), 0.05)
    share[[0, 10, 50, 100]] = 0.99
    share[20] = 0.49  # not more than half
    requests = written(tmp_path, served(np.rint(prompt * share), prompt, 0.01, 1))
    found = fit("Staging", requests, None, closed=True)
    assert found.why_not is None
    assert found.error is not None
    assert found.constant_error is not None
    assert "by 120 requests, of which 4 computed more than half of the prompt" in fit_basis(found)
    median, mean, flat_median, flat_mean = np.expm1([*found.error, *found.constant_error])
    said = f"it is {median:.0%} off in the median and {mean:.0%} in the mean, one and the same time"
    assert f"{said} for all {flat_median:.0%} and {flat_mean:.0%} (" in fit_basis(found)


def changed(rows: list[dict[str, Any]], **change: Any) -> list[dict[str, Any]]:
    return [row | change for row in rows]


def shuffled(rows: list[dict[str, Any]], spread: float) -> list[dict[str, Any]]:
    """Times that have nothing to do with tokens."""
    times = 0.5 * np.exp(spread * np.random.default_rng(2).normal(size=len(rows)))
    return [row | {"ttft_s": float(time)} for row, time in zip(rows, times, strict=True)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: changed(rows, ttft_s=None), "0 requests have both"),
        (lambda rows: changed(rows, cached_tokens=None), "0 requests have both"),
        (lambda rows: changed(rows, prompt_tokens=0, cached_tokens=0), "0 requests have both"),
        (lambda rows: [rows[0] | {"prompt_tokens": 10**11}, *rows[1:]], "too long to replay"),
        (lambda rows: changed(rows, session="one"), "they are of 1 sessions, 10 are needed"),
        (lambda rows: changed(rows, ttft_s=0.3), "uncached tokens tell too little here"),
        (lambda rows: shuffled(rows, 0.05), "uncached tokens tell too little here"),
        (lambda rows: shuffled(rows, 1.0), "more than 25%: something else"),
    ],
)
def test_a_poor_model_is_refused_with_its_reason(tmp_path: Path, change: Any, why: str) -> None:
    requests = written(tmp_path, change(served(*drawn(0.3), 0.05, 1)))
    found = fit("Staging", requests, Rate("Expected", 0.4), closed=True)
    assert found.why_not is not None
    assert why in found.why_not
    assert found.answer is None
    assert why in fit_basis(found)
    assert fit_answer(found) == ""
    if found.points:
        assert "line-own" not in fit_chart(found, 460)


def test_a_rate_that_would_take_too_long_to_replay_gets_no_time(tmp_path: Path) -> None:
    rows = served(*drawn(0.3), 0.05, 1)
    rows[0] |= {"prompt_tokens": 10**11, "cached_tokens": 10**11 - rows[0]["prompt_tokens"]}
    found = fit("Staging", written(tmp_path, rows), Rate("Expected", 0.9), closed=True)
    assert found.why_not is None
    assert found.answer is not None
    assert "too long to replay" in fit_answer(found)


def test_a_rate_beyond_what_was_seen_gets_no_time(tmp_path: Path) -> None:
    uncached, prompt = drawn(0.3)
    requests = written(tmp_path, served(np.minimum(uncached, 100), prompt, 0.05, 1))
    found = fit("Staging", requests, Rate("Expected", 0.02), closed=True)
    assert (found.why_not, fit_table(found)) == (None, None)
    assert found.answer is not None
    assert "no time is told at 2%" in fit_answer(found)
    assert "half of the requests would compute more" in str(found.answer.why_not)


def test_another_rate_keeps_who_hits_more_and_is_reached_exactly() -> None:
    prompt, uncached = np.array([100.0, 100, 200]), np.array([10.0, 50, 20])
    found = uncached_at(0.4, prompt, uncached)
    assert found is not None
    assert found.sum() == pytest.approx(240)
    odds = [(u / (p - u)) / (v / (p - v)) for u, v, p in zip(found, uncached, prompt, strict=True)]
    assert odds == pytest.approx([odds[0]] * 3)


def test_prompts_that_hit_nothing_hit_nothing_at_any_rate() -> None:
    prompt = np.array([100.0, 100.0])
    assert uncached_at(0.9, prompt, np.array([100.0, 10.0])) is None
    half = uncached_at(0.4, prompt, np.array([100.0, 10.0]))
    assert half is not None
    assert half == pytest.approx([100, 20])


def test_turns_follow_their_session_and_sessions_the_user_who_is_free(tmp_path: Path) -> None:
    def row(session: str, sent: float, completed: float) -> dict[str, Any]:
        return {"session": session, "sent_s": sent, "completed_s": completed, "prompt_tokens": 10,
                "cached_tokens": 0, "ttft_s": 0.1, "output_tokens": 2}  # fmt: skip

    rows = [row("a", 0, 4), row("b", 0.5, 2), row("c", 2.5, 3), row("a", 5, 6), row("d", 7, 8)]
    requests = written(tmp_path, rows)
    used = answered(requests)
    closed = traffic_of(requests, used, closed=True)
    # c follows b's user, a's second turn its first; d the user of c, free since 3
    assert closed.after.tolist() == [-1, -1, 1, 0, 2]
    assert closed.think_s.tolist() == [0, 0, 0.5, 1, 4]
    assert traffic_of(requests, used, closed=False).after.tolist() == [-1, -1, -1, 0, -1]
