"""Tenants as the unit: a log of some tenants' sessions, all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from trials import capacities_of, rates_at, take_requests
from worlds import make_world

from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.traces import TokenRequest, token_trace


@cache
def production() -> Trace:
    """Each tenant's prompts begin alike, and unlike all others'."""
    trace = make_world("tenant_blocks", 2, 3)
    tenant = np.unique(trace.block_ids[trace.block_ptr[:-1]], return_inverse=True)[1]
    return replace(trace, tenant=tenant.reshape(-1))


def some_tenants(share: float) -> tuple[Trace, float]:
    """The log, and production's tenants as a multiple of its own."""
    trace = production()
    assert trace.tenant is not None
    total = int(trace.tenant.max()) + 1
    chosen = np.random.default_rng(0).permutation(total)[: round(share * total)]
    return take_requests(trace, np.isin(trace.tenant, chosen)), total / len(chosen)


def test_copies_of_whole_tenants_forecast_what_copies_of_sessions_overrate() -> None:
    log, times = some_tenants(0.4)
    sizes = capacities_of(production())
    truth = rates_at(production(), sizes)
    off = {}
    for unit in ("tenants", "sessions"):
        answer = forecast(log, times, curve_blocks=sizes, sampled=unit)
        rates = np.array([point.hit_rate for point in answer.curve])
        off[unit] = float(np.abs(rates - truth).mean())
    assert off["tenants"] < 0.025
    assert off["sessions"] > 2 * off["tenants"]


def test_parts_of_the_split_stay_about_sessions() -> None:
    log, times = some_tenants(0.4)
    split = forecast(log, times, sampled="tenants", target_points=50).split
    whole = forecast(production(), 1.0).split
    assert split.continuation is not None
    assert whole.continuation is not None
    assert abs(split.continuation - whole.continuation) < 0.05


def test_more_tenants_are_needed_than_there_are_or_none_would_do() -> None:
    """One of the points is no matter of their number, and does not count against them."""
    log, times = some_tenants(0.4)
    answer = forecast(log, times, sampled="tenants", target_points=50)
    half = answer.self_check["half_width_points"]
    narrower = forecast(log, times, sampled="tenants", target_points=half - 0.1).needs or ""
    needed = int(narrower.split(" about ")[1].split()[0].replace(",", ""))
    assert needed > answer.self_check["sessions"]
    never = forecast(log, times, sampled="tenants", target_points=0.5).needs or ""
    assert "never below ±1" in never


def test_a_log_without_tenants_or_with_few_of_them_is_refused() -> None:
    log, times = some_tenants(0.4)
    nobody = forecast(replace(log, tenant=None), times, sampled="tenants")
    assert "names no tenants" in (nobody.needs or "")
    few, times = some_tenants(0.1)
    assert "tenants, fewer than 100" in (forecast(few, times, sampled="tenants").needs or "")
    sticky = forecast(log, times, replicas=2, routing="sticky", sampled="tenants")
    assert "sticky routing is by session" in (sticky.needs or "")


def test_salts_are_tenants() -> None:
    rows = [TokenRequest([1, 2], salt=salt) for salt in ("a", "b", "a")]
    trace = token_trace(rows, 2)
    assert trace.tenant is not None
    assert trace.tenant.tolist() == [0, 1, 0]
    assert token_trace(rows[:1], 2).tenant is None
