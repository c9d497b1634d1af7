"""The gate's verdicts, one change of a passing run at a time."""

from __future__ import annotations

from typing import Any

import pytest
from gate_builders import REFUSED, UNSPLIT, expected, mirage, run

from loadkit.core.errors import InputError
from loadkit.gate import decide
from loadkit.gate.policy import Policy
from loadkit.thresholds import Thresholds


def codes(measured: dict[str, Any], forecast: dict[str, Any] | None = None) -> list[str]:
    return [reason.code for reason in decide(measured, forecast or expected()).reasons]


def verdict(measured: dict[str, Any], forecast: dict[str, Any] | None = None) -> str:
    return decide(measured, forecast or expected()).verdict


def test_a_run_like_production_passes_without_reasons() -> None:
    answer = decide(run(), expected())
    assert (answer.verdict, answer.reasons, answer.exit_code) == ("PASS", (), 0)


def test_replays_that_lift_the_rate_are_a_mirage_and_the_message_has_the_figures() -> None:
    answer = decide(mirage(), expected())
    assert (answer.verdict, answer.exit_code) == ("FAIL", 1)
    [reason] = answer.reasons
    assert reason.code == "replay_mirage"
    assert (reason.measured, reason.expected) == (0.92, 0.41)
    for figure in ("92.0%", "41.0%", "88.0 points"):
        assert figure in reason.message
    assert "chat-assistant" in reason.remedy


def test_retries_of_the_same_session_are_a_mirage_too() -> None:
    retries = mirage()
    retries["split"]["replay_same_session_rate"] = retries["split"]["replay_cross_session_rate"]
    retries["split"]["replay_cross_session_rate"] = 0.0
    assert codes(retries) == ["replay_mirage"]


def test_a_rate_too_high_without_replays_is_unlike_production_for_a_named_cause() -> None:
    shared = run(split__hit_rate=0.9, split__shared_rate=0.68)
    [reason] = decide(shared, expected()).reasons
    assert reason.code == "unlike_production"
    assert "shared prefixes (68.0 points)" in reason.message


def test_replays_that_explain_only_a_part_are_not_blamed_for_all() -> None:
    # 90% measured; without 10 points of replays 80% is left, far above 41%
    both = run(split__hit_rate=0.9, split__replay_cross_session_rate=0.13, split__shared_rate=0.57)
    assert codes(both) == ["unlike_production"]


def test_replays_that_production_has_too_are_no_mirage_if_somebody_says_so() -> None:
    """A log that is itself full of replays is a test's, or has its sessions twice."""
    forecast = expected(
        hit_rate={"estimate": 0.92, "low": 0.92, "high": 0.92},
        split__replay_cross_session=0.88,
        split__continuation=0.04,
        split__shared=0.0,
    )
    [reason] = decide(mirage(), forecast).reasons
    assert (reason.code, reason.measured, reason.expected) == ("forecast_refused", 0.88, 0.3)
    known = Policy(Thresholds(max_expected_replay=1.0))
    assert decide(mirage(), forecast, known).verdict == "PASS"
    assert "max_expected_replay 1 (ours 0.3)" in decide(mirage(), forecast, known).notes[-1]


def test_the_right_rate_made_of_replays_does_not_pass() -> None:
    made_up = run(
        split__replay_cross_session_rate=0.40,
        split__continuation_rate=0.0,
        split__shared_rate=0.0,
    )
    assert verdict(made_up) == "FAIL"
    assert codes(made_up) == ["unlike_production"]


def test_replays_are_not_excused_by_a_forecast_without_split() -> None:
    none = expected(split=dict.fromkeys(expected()["split"]))
    with pytest.raises(InputError, match="the hit rate or its split is missing"):
        decide(run(split__replay_cross_session_rate=0.2), none)


def test_too_low_a_rate_is_unlike_production_too() -> None:
    low = run(
        split__hit_rate=0.2,
        reconciliation__usage__cached_tokens=2000,
        reconciliation__prediction__cached_tokens=2000,
    )
    assert codes(low, expected(log={"sessions": 25})) == ["unlike_production"]
    assert verdict(low, expected(log={"sessions": 25})) == "FAIL"
    [reason] = decide(low, expected(log={"sessions": 25})).reasons
    assert "(continuation 20.0%, production" in reason.message


def test_a_replay_below_a_forecast_with_replies_is_told_to_forecast_the_prompts() -> None:
    low = run(
        kind="replay",
        split__hit_rate=0.2,
        reconciliation__usage__cached_tokens=2000,
        reconciliation__prediction__cached_tokens=2000,
    )
    with_replies = expected(log={"sessions": 25, "replies": True})
    [reason] = decide(low, with_replies).reasons
    assert (verdict(low, with_replies), reason.code) == ("INCONCLUSIVE", "unlike_production")
    assert reason.remedy is not None
    assert "--prompts-only" in reason.remedy
    assert verdict(low, expected(log={"sessions": 25, "replies": False})) == "FAIL"


REPLIES_HIT = {"split__hit_rate": 0.7, "split__continuation_rate": 0.5}


def test_a_replay_above_a_forecast_without_replies_may_have_computed_them_itself() -> None:
    answer = decide(run(kind="replay", **REPLIES_HIT), expected())
    [reason] = answer.reasons
    assert (answer.verdict, reason.code) == ("INCONCLUSIVE", "unlike_production")
    assert "the log's replies itself (same model, temperature 0)" in reason.message
    assert "forecast without --prompts-only and compare" in reason.remedy


@pytest.mark.parametrize(
    ("measured", "replies", "code"),
    [
        (run(**REPLIES_HIT), False, "unlike_production"),  # live replies are in every forecast
        (run(kind="replay", **REPLIES_HIT), True, "unlike_production"),
        (run(kind="replay", split__hit_rate=0.7, split__shared_rate=0.48), False, "unlike_production"),
        (mirage() | {"kind": "replay"}, False, "replay_mirage"),
        (  # without 27 points of replays 43% is left, although 20 points more continue, too
            run(
                kind="replay",
                split__hit_rate=0.7,
                split__replay_cross_session_rate=0.30,
                split__continuation_rate=0.40,
                split__shared_rate=0.0,
            ),
            False,
            "replay_mirage",
        ),
    ],
)  # fmt: skip
def test_replies_excuse_neither_replays_nor_shared_prefixes(
    measured: dict[str, Any], replies: bool, code: str
) -> None:
    forecast = expected(log={"replies": replies})
    assert (verdict(measured, forecast), codes(measured, forecast)) == ("FAIL", [code])


@pytest.mark.parametrize(
    ("scenario", "horizon"),
    [
        ({"traffic": 1.0, "horizon_s": None}, "180"),  # 20 sessions of 400 in an hour
        ({"traffic": 5.0, "horizon_s": None}, "36"),
        ({"traffic": 5.0, "horizon_s": 360.0}, "36"),
    ],
)
def test_a_short_run_with_too_low_a_rate_is_told_which_cold_start_to_forecast(
    scenario: dict[str, Any], horizon: str
) -> None:
    low = run(
        split__hit_rate=0.2,
        reconciliation__usage__cached_tokens=2000,
        reconciliation__prediction__cached_tokens=2000,
    )
    forecast = expected(log={"sessions": 400, "duration_s": 3600.0})
    forecast["scenario"] |= scenario
    answer = decide(low, forecast)
    assert (answer.verdict, codes(low, forecast)) == ("INCONCLUSIVE", ["too_few_samples"])
    assert f"--horizon {horizon}," in answer.reasons[0].remedy
    assert answer.reasons[0].interval is not None
    assert decide(run(), forecast).verdict == "PASS"
    assert any("like with like" in note for note in decide(run(), forecast).notes)
    forecast["scenario"]["horizon_s"] = float(horizon)  # as long as the run: no excuse
    assert codes(low, forecast) == ["unlike_production"]


def test_a_short_run_that_is_too_high_for_no_replays_is_told_that_it_evicts_little() -> None:
    other = run(split__hit_rate=0.7, split__replay_cross_session_rate=0.13, split__shared_rate=0.37)
    [reason] = decide(other, expected(log={"sessions": 400, "duration_s": 3600.0})).reasons
    assert (reason.code, reason.verdict) == ("unlike_production", "FAIL")
    assert "--horizon 180" in reason.remedy


@pytest.mark.parametrize(
    ("left", "rate", "answer"),
    [
        (0, 0.4, "PASS"),
        (6, 0.4, "PASS"),  # 36.4% with six misses more, 36% will do
        (7, 0.4, "INCONCLUSIVE"),  # 35.8%
        (20, 0.5, "INCONCLUSIVE"),  # 37.5%: the misses that were left may have made 50% of it
        (20, 0.9, "FAIL"),  # 67.5%
    ],
)
def test_users_who_leave_may_be_the_misses(left: int, rate: float, answer: str) -> None:
    gone = run(left=left, requests__scheduled=60 + left, split__hit_rate=rate)
    found = decide(gone, expected())
    assert found.verdict == answer
    if answer == "INCONCLUSIVE":
        assert (found.reasons[0].code, found.reasons[0].expected) == ("not_reported", rate)


@pytest.mark.parametrize(
    ("rate", "half_width", "answer"),
    [
        (0.43, 0.0, "PASS"),  # 41% + the least allowance of 2 points
        (0.4301, 0.0, "FAIL"),
        (0.4599, 0.05, "PASS"),  # 41% + a half width of 5 points
        (0.4601, 0.05, "FAIL"),
        (0.39, 0.0, "PASS"),
        (0.3899, 0.0, "INCONCLUSIVE"),  # a run that is shorter than the log
    ],
)
def test_the_allowance_is_the_half_width_but_at_least_two_points(
    rate: float, half_width: float, answer: str
) -> None:
    near = run(split__hit_rate=rate, split__hit_rate_half_width=half_width)
    assert verdict(near) == answer


def test_the_forecasts_interval_counts_where_it_has_one() -> None:
    wide = expected(hit_rate={"estimate": 0.41, "low": 0.35, "high": 0.55})
    assert verdict(run(split__hit_rate=0.56), wide) == "PASS"
    assert verdict(run(split__hit_rate=0.61), wide) == "FAIL"


def test_a_forecast_that_any_run_fits_decides_nothing() -> None:
    vague = expected(hit_rate={"estimate": 0.41, "low": 0.2, "high": 0.41})
    [reason] = decide(run(), vague).reasons
    assert (reason.code, reason.measured) == ("forecast_refused", pytest.approx(0.105))
    assert (
        verdict(run(), expected(hit_rate={"estimate": 0.41, "low": 0.21, "high": 0.41})) == "PASS"
    )


def test_a_rate_counted_in_a_log_is_a_draw_too() -> None:
    """20 sessions in the run, 20 in the log: differences spread sqrt(2) times as far."""
    small = expected(log={"sessions": 20})
    assert decide(run(), small).hit_rate.allowance == pytest.approx(0.05 * 2**0.5)
    said = expected(log={"sessions": 20}, hit_rate={"estimate": 0.41, "low": 0.4, "high": 0.45})
    assert decide(run(), said).hit_rate.allowance == 0.05


def test_a_very_uncertain_rate_never_passes() -> None:
    vague = run(split__hit_rate_half_width=0.3)
    assert (verdict(vague), codes(vague)) == ("INCONCLUSIVE", ["too_few_samples"])


def test_more_cached_tokens_than_the_stream_could_reuse_mean_a_warm_cache() -> None:
    warm = run(reconciliation__usage__cached_tokens=4101)
    [reason] = decide(warm, expected()).reasons
    assert (reason.code, reason.measured, reason.expected) == ("warm_cache", 4101, 4100)
    assert verdict(run(reconciliation__usage__cached_tokens=4100)) == "PASS"


def test_a_cache_that_serves_less_than_it_holds_underperforms() -> None:
    weak = run(reconciliation__usage__cached_tokens=3700)
    [reason] = decide(weak, expected()).reasons
    assert (reason.code, reason.measured, reason.expected) == ("cache_underperforms", 0.37, 0.4)


NOTHING_HIT = {
    "endpoint__prefix_caching": False,
    "split__hit_rate": 0.0,
    "split__replay_cross_session_rate": 0.0,
    "split__continuation_rate": 0.0,
    "split__shared_rate": 0.0,
    "reconciliation__usage__cached_tokens": 0,
    "reconciliation__prediction__cached_tokens": 0,
    "reconciliation__prediction_capacity_blocks": None,
}


@pytest.mark.parametrize("sessions", [25, 10**5])  # as many as the run's, or a far longer log
@pytest.mark.parametrize("capacity", [2000, None])
def test_prefix_caching_that_is_off_is_why_the_rate_is_low(
    sessions: int, capacity: int | None
) -> None:
    forecast = expected(log={"sessions": sessions}, scenario__capacity_blocks=capacity)
    answer = decide(run(**NOTHING_HIT), forecast)
    [reason] = answer.reasons
    assert (answer.verdict, reason.code) == ("FAIL", "cache_underperforms")
    assert "prefix caching is off at the server" in reason.message
    assert "start it with prefix caching on" in reason.remedy


def test_prefix_caching_that_is_off_explains_why_no_cached_tokens_were_reported() -> None:
    silent = run(endpoint__prefix_caching=False, reconciliation__usage__cached_tokens=None)
    silent["split"] = UNSPLIT
    assert (verdict(silent), codes(silent)) == ("FAIL", ["cache_underperforms"])


@pytest.mark.parametrize("told", [True, None])
def test_prefix_caching_that_is_on_or_unknown_is_not_blamed(told: bool | None) -> None:
    assert verdict(run(endpoint__prefix_caching=told)) == "PASS"
    assert codes(run(**NOTHING_HIT | {"endpoint__prefix_caching": told})) == ["too_few_samples"]


def test_a_cache_is_not_blamed_for_blocks_that_running_requests_hold() -> None:
    weak = {"reconciliation__usage__cached_tokens": 3700}
    assert verdict(run(**weak, reconciliation__prediction_overlap_tokens=3700)) == "PASS"
    assert verdict(run(**weak, reconciliation__prediction_overlap_tokens=3950)) == "FAIL"
    assert verdict(run(**weak, reconciliation__prediction_low_tokens=3700)) == "PASS"


def test_without_a_known_capacity_a_cache_is_not_blamed() -> None:
    unknown = run(
        reconciliation__usage__cached_tokens=3700, reconciliation__prediction_capacity_blocks=None
    )
    assert (verdict(unknown), codes(unknown)) == ("INCONCLUSIVE", ["not_reported"])
    same = {"cached_tokens": 3700, "prompt_tokens": 10_000}
    unknown["reconciliation"] |= {"prometheus": same, "usage_all_phases": same}
    assert verdict(unknown) == "PASS", "a second witness says the same"


@pytest.mark.parametrize(
    ("change", "code"),
    [({"wraps": 3}, "wrapped_corpus"), ({"mutations": 1}, "append_only_violation")],
)
def test_faults_of_the_traffic_fail_whatever_the_rate(change: dict[str, Any], code: str) -> None:
    assert verdict(run(**change)) == "FAIL"
    assert codes(run(**change)) == [code]


def test_a_mirage_is_named_before_the_wrap_that_made_it() -> None:
    wrapped = mirage() | {"wraps": 11}
    assert codes(wrapped) == ["replay_mirage", "wrapped_corpus"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"requests__ok": 29, "split__requests": 29}, "too_few_samples"),
        ({"split__sessions": 9}, "too_few_samples"),
        ({"split__requests": 50}, "not_reported"),
        ({"status": "invalid"}, "too_few_samples"),
        ({"status": "invalid", "reasons": [{"code": "invalid_timing", "message": "late"}]}, "invalid_timing"),
        ({"status": "invalid", "reasons": [{"code": "missing_workers", "message": "1"}]}, "too_few_samples"),
        ({"block_size": 32}, "forecast_refused"),
        ({"tokenizer__fingerprint": "bb"}, "forecast_refused"),
        ({"endpoint__tokenizer_fingerprint": "bb"}, "forecast_refused"),
        ({"requests__scheduled": 67}, "too_few_samples"),  # 60 of 67: more than a tenth missing
        ({"capacity_blocks": 1000}, "forecast_refused"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_inconclusive(change: dict[str, Any], code: str) -> None:
    answer = decide(run(**change), expected())
    assert (answer.verdict, answer.exit_code) == ("INCONCLUSIVE", 3)
    assert [reason.code for reason in answer.reasons] == [code]


INTERRUPTED = {"code": "interrupted", "message": "the run was interrupted"}


def test_a_forecast_in_other_blocks_than_the_servers_names_the_command_that_mends_it() -> None:
    """vLLM issue 40696: a rate forecast in blocks of 16, a server that has 528."""
    found = decide(run(block_size=528), expected())
    reason = found.reasons[0]
    assert (found.verdict, reason.code) == ("INCONCLUSIVE", "forecast_refused")
    assert reason.message == "the run has block size 528, the forecast 16"
    assert "loadkit forecast again with --block-size 528" in reason.remedy


def test_a_forecast_of_every_block_is_an_upper_bound_for_a_server_that_keeps_a_few_places() -> None:
    hybrid = run(
        endpoint__kept_blocks=[1],
        split__hit_rate=0.2,
        split__shared_rate=0.0,
        split__continuation_rate=0.18,
        split__organic_hit_rate=0.19,
    )
    found = decide(hybrid, expected())
    assert (found.verdict, found.reasons[0].code) == ("INCONCLUSIVE", "forecast_refused")
    assert "--model-config" in found.reasons[0].remedy
    like = decide(hybrid, expected(scenario__kept_blocks=[1]))
    assert not any("--model-config" in reason.remedy for reason in like.reasons)
    assert verdict(run(endpoint__kept_blocks=[1]), expected(scenario__kept_blocks=[1])) == "PASS"


def test_a_run_that_is_not_valid_has_one_reason_and_does_not_fail_for_a_planned_wrap() -> None:
    torn = {"code": "torn_journal", "message": "9 bytes"}
    cut = run(status="invalid", reasons=[INTERRUPTED, torn], requests__ok=3, wraps=11)
    answer = decide(cut, expected())
    assert answer.verdict == "INCONCLUSIVE"
    [reason] = answer.reasons
    assert reason.message == "the run is not valid: the run was interrupted; 9 bytes"
    assert "`errors` in run.json" in reason.remedy
    assert not any("like with like" in note for note in answer.notes)


def test_a_warm_cache_fails_even_a_run_that_is_not_valid() -> None:
    warm = run(status="invalid", reasons=[INTERRUPTED], reconciliation__usage__cached_tokens=4101)
    answer = decide(warm, expected())
    assert (answer.verdict, answer.reasons[0].code) == ("FAIL", "warm_cache")
    assert "loadkit run --reset" in answer.reasons[0].remedy


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ({"requests": 1, "sessions": 1}, "the forecast is from a log of 1 request, at least 30"),
        ({"requests": 29, "sessions": 20}, "log of 29 requests"),
        ({"requests": 30, "sessions": 9}, "log of 9 sessions, at least 10"),
    ],
)
def test_a_forecast_from_a_tiny_log_decides_nothing(log: dict[str, int], says: str) -> None:
    answer = decide(run(), expected(log=log))
    assert answer.verdict == "INCONCLUSIVE"
    [reason] = answer.reasons
    assert reason.code == "too_few_samples"
    assert says in reason.message


def test_a_forecast_from_the_smallest_log_that_will_do_is_judged() -> None:
    assert verdict(run(), expected(log={"requests": 30, "sessions": 10})) == "PASS"


@pytest.mark.parametrize("change", [{"requests__ok": 29}, {"split__sessions": 9}])
def test_a_tiny_run_has_no_allowance_for_chance(change: dict[str, Any]) -> None:
    assert decide(run(**change), expected()).hit_rate.allowance is None
    assert decide(run(), expected()).hit_rate.allowance == pytest.approx(0.05, rel=1e-3)


def test_a_run_that_cannot_be_judged_is_not_failed_for_its_rate() -> None:
    assert verdict(mirage() | {"block_size": 32}) == "INCONCLUSIVE"


def test_a_server_that_reports_nothing_is_told_which_flag_is_missing() -> None:
    silent = run(reconciliation__usage__cached_tokens=None)
    silent["split"] = UNSPLIT
    [reason] = decide(silent, expected()).reasons
    assert reason.code == "not_reported"
    assert "--enable-prompt-tokens-details" in reason.remedy


def test_counts_without_a_split_are_not_enough() -> None:
    unsplit = run()
    unsplit["split"] = UNSPLIT
    [reason] = decide(unsplit, expected()).reasons
    assert reason.code == "not_reported"
    assert "split by cause" in reason.message


def test_a_refused_forecast_is_inconclusive_and_says_what_it_needs() -> None:
    refused = expected(status="inconclusive", **REFUSED, needs="two more hours of log")
    [reason] = decide(run(), refused).reasons
    assert (reason.code, reason.remedy) == ("forecast_refused", "two more hours of log")


def test_an_infinite_forecast_is_an_upper_bound_for_any_capacity() -> None:
    """Staging may equal it because it is too short to evict anything, and production may not."""
    infinite = expected(scenario__capacity_blocks=None)
    assert verdict(run(), infinite) == "INCONCLUSIVE"
    assert codes(mirage(), infinite) == ["replay_mirage"]
    assert verdict(run(capacity_blocks=None), infinite) == "PASS"


@pytest.mark.parametrize(
    ("point", "answer"),
    [((1999, 0.41), "PASS"), ((2001, 0.41), "INCONCLUSIVE"), ((1999, 0.40), "INCONCLUSIVE")],
)
def test_an_infinite_forecast_will_do_where_production_fits_into_the_cache(
    point: tuple[int, float], answer: str
) -> None:
    curve = [{"capacity_blocks": point[0], "hit_rate": point[1]}]
    assert verdict(run(), expected(scenario__capacity_blocks=None, curve=curve)) == answer


def test_a_cache_that_serves_more_than_its_size_holds_does_not_pass() -> None:
    """40 points served, 38 or 37 resident: two more may be rounding, three are not."""
    tokens = {"reconciliation__prediction_overlap_tokens": 3600}
    assert verdict(run(reconciliation__prediction__cached_tokens=3800, **tokens)) == "PASS"
    more = run(reconciliation__prediction__cached_tokens=3700, **tokens)
    assert (verdict(more), codes(more)) == ("INCONCLUSIVE", ["warm_cache"])


@pytest.mark.parametrize(("continuation", "answer"), [(0.30, "PASS"), (0.31, "INCONCLUSIVE")])
def test_a_rate_made_otherwise_than_productions_does_not_pass(
    continuation: float, answer: str
) -> None:
    """Near copies of prompts, or sessions torn apart: 20 points continue where 31 should."""
    other = expected(split__continuation=continuation, split__shared=0.38 - continuation)
    assert verdict(run(split__hit_rate_half_width=0.0), other) == answer
    assert codes(run(split__hit_rate_half_width=0.0), other) == (
        [] if answer == "PASS" else ["unlike_production"]
    )


def test_usage_that_the_servers_own_counters_deny_decides_nothing() -> None:
    both = {"cached_tokens": 9200, "prompt_tokens": 10_000}
    lied = run(reconciliation__prometheus=both)
    [reason] = decide(lied, expected()).reasons
    assert (reason.code, reason.measured, reason.expected) == ("witnesses_differ", 0.4, 0.92)
    near = run(reconciliation__prometheus={"cached_tokens": 4199, "prompt_tokens": 10_000})
    assert verdict(near) == "PASS"


@pytest.mark.parametrize(
    ("silent", "cached", "answer"),
    [
        (6, 4900, "PASS"),  # 9 points: 6 of 66 and the least allowance of 2 are 11.1
        (6, 2950, "PASS"),
        (6, 5120, "INCONCLUSIVE"),
        (0, 4900, "INCONCLUSIVE"),
    ],
)
def test_counters_may_differ_by_what_was_left_without_an_answer(
    silent: int, cached: int, answer: str
) -> None:
    gone = run(
        left=silent,
        requests__scheduled=60 + silent,
        reconciliation__unanswered_requests=silent,
        reconciliation__prometheus={"cached_tokens": cached, "prompt_tokens": 10_000},
    )
    found = decide(gone, expected())
    assert found.verdict == answer
    named = [f"{silent} requests without an answer" in reason.message for reason in found.reasons]
    assert named == ([] if answer == "PASS" else [silent > 0])


def test_a_prompt_of_other_lengths_shows_another_tokenizer() -> None:
    other = run(reconciliation__prediction__prompt_tokens=9000)
    [reason] = decide(other, expected()).reasons
    assert reason.code == "template_differs"
    assert "10,000 prompt tokens where --tokenizer counts 9,000" in reason.message
    assert verdict(run(reconciliation__prediction__prompt_tokens=9900)) == "PASS"


DIFFERS = {
    "compared": 6,
    "by": "token_ids",
    "different": 6,
    "first": {
        "session": "s",
        "turn": 0,
        "server_tokens": 128,
        "local_tokens": 116,
        "first_token": 0,
    },
}


def test_another_template_at_the_first_answers_is_inconclusive() -> None:
    by_tokenizer = {"source": "tokenizer", "from_server": 3, "answers": 60}
    found = run() | {"template": DIFFERS, "prompt_ids": by_tokenizer}
    [reason] = decide(found, expected()).reasons
    assert (reason.code, reason.verdict) == ("template_differs", "INCONCLUSIVE")
    assert (reason.measured, reason.expected) == (128, 116)
    assert "6 of 6 prompts are not what --tokenizer makes of them" in reason.message
    assert "128 tokens on the server and 116 here, from token 0 on" in reason.message
    assert verdict(found | {"template": DIFFERS | {"different": 0, "first": None}}) == "PASS"


def test_another_template_is_a_note_where_the_servers_own_ids_were_used() -> None:
    own = {"source": "server", "from_server": 60, "answers": 60}
    found = decide(run() | {"template": DIFFERS, "prompt_ids": own}, expected())
    assert found.verdict == "PASS"
    assert any("made of the server's own token ids" in note for note in found.notes)


def test_answers_without_usage_do_not_look_like_another_tokenizer() -> None:
    """One of 100 answers lacks usage, and its prompt was 4% of all tokens."""
    one = run(
        requests={"scheduled": 100, "ok": 100},
        split__requests=99,
        reconciliation__usage__prompt_tokens=9600,
        reconciliation__impossible__judged=99,
    )
    assert (verdict(one), codes(one)) == ("PASS", [])
    assert codes(run(split__requests=50, reconciliation__usage__prompt_tokens=8000)) == [
        "not_reported"
    ]


def test_a_forecasts_parts_that_do_not_add_up_were_edited() -> None:
    with pytest.raises(
        InputError, match=r"hit rate is 0\.4100, the parts of its split are 0\.3100"
    ):
        decide(
            run(),
            expected(split__continuation=0.1),
        )


def test_a_run_called_ok_with_a_reason_why_not_was_edited() -> None:
    with pytest.raises(InputError, match="status ok, but interrupted is a reason"):
        decide(run(reasons=[INTERRUPTED]), expected())


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("caching_off", "the server's prefix cache is off"),
        ("beyond_eviction", "eviction at the cache's size does not explain it"),
        (None, "nobody knows why"),
    ],
)
def test_a_note_names_misses_that_nobody_can_explain(why: str | None, words: str) -> None:
    lost = run(split__miss_unexplained=600, split__miss_unexplained_why=why)
    told = f"miss_unexplained: 600 prompt tokens (6.0%) could have hit and did not: {words}"
    assert told in decide(lost, expected()).notes
    assert not any("miss_unexplained" in note for note in decide(run(), expected()).notes)


def test_notes_say_what_the_forecast_is_for_and_that_its_log_may_be_the_run_itself() -> None:
    fleet = expected(scenario__replicas=4, scenario__routing="random", scenario__traffic=20.0)
    assert "20x the traffic of a log of 1,000,000 requests" in decide(run(), fleet).notes[-1]
    assert "4 replicas, random routing" in decide(run(), fleet).notes[-1]
    same = expected(log={"requests": 60, "prompt_tokens": 10_000})
    assert any("exactly this run's requests" in note for note in decide(run(), same).notes)


def test_a_rate_below_an_infinite_forecast_says_nothing_about_a_finite_cache() -> None:
    low = run(
        split__hit_rate=0.2,
        reconciliation__usage__cached_tokens=2000,
        reconciliation__prediction__cached_tokens=2000,
    )
    answer = decide(low, expected(scenario__capacity_blocks=None))
    assert answer.verdict == "INCONCLUSIVE"
    [reason] = answer.reasons
    assert (reason.code, reason.remedy[-15:]) == ("forecast_refused", "--capacity 2000")


def test_hits_that_unanswered_requests_may_explain_are_no_proof_of_a_warm_cache() -> None:
    some = run(reconciliation__usage__cached_tokens=4101, reconciliation__unanswered_requests=1)
    assert (verdict(some), codes(some)) == ("INCONCLUSIVE", ["warm_cache"])


def test_a_tenth_of_the_plan_may_stay_unanswered() -> None:
    assert verdict(run(requests__scheduled=66)) == "PASS"


def test_requests_that_users_left_on_purpose_are_not_missed() -> None:
    assert verdict(run(requests__scheduled=80)) == "INCONCLUSIVE"
    assert verdict(run(requests__scheduled=67)) == "INCONCLUSIVE"
    assert verdict(run(requests__scheduled=67, left=6)) == "PASS"


def test_a_capacity_within_a_percent_is_the_same() -> None:
    assert verdict(run(capacity_blocks=1999)) == "PASS"


@pytest.mark.parametrize(
    ("measured", "forecast", "place"),
    [
        (run(split__hit_rate=1.01), expected(), "--measured.*hit_rate"),
        (run(), expected(hit_rate={"estimate": 41}), "--expected.*estimate"),
        (run(schema="loadkit.run/9"), expected(), "--measured.*run/9.*update"),
        ({}, expected(), "--measured"),
        (run(), {"schema": "loadkit.analysis/1"}, "--expected"),
    ],
)
def test_what_is_no_run_or_forecast_is_refused_with_its_place(
    measured: dict[str, Any], forecast: dict[str, Any], place: str
) -> None:
    with pytest.raises(InputError, match=place):
        decide(measured, forecast)


def test_the_json_has_its_schema_and_every_reason_its_fields() -> None:
    data = decide(mirage(), expected()).to_dict()
    assert data["schema"] == "loadkit.gate/1"
    fields = {"code", "message", "measured", "expected", "interval", "remedy", "verdict"}
    assert set(data["reasons"][0]) == fields


def wide(half: float, **changes: Any) -> dict[str, Any]:
    """A forecast of 41% that is sure to ± `half` and was asked to be sure to ±5 points."""
    ends = {"estimate": 0.41, "low": 0.41 - half, "high": 0.41 + half}
    return expected(status="inconclusive", hit_rate=ends, needs="two hours more", **changes)


def test_a_forecast_a_hair_too_wide_says_how_wide_and_which_option_accepts_it() -> None:
    [reason] = decide(run(), wide(0.05045)).reasons
    assert (reason.code, reason.measured) == ("forecast_refused", pytest.approx(0.05045))
    assert "36.0% to 46.0%, ±5.04 points" in reason.message or "±5.05 points" in reason.message
    assert "loadkit forecast LOG --target 5.1" in reason.remedy
    assert "two hours more" in reason.remedy
    checks = {check.code: check for check in decide(run(), wide(0.05045)).checks}
    assert checks["cache_underperforms"].outcome == "passed"
    assert "for this setting" not in reason.message


def test_a_forecast_wider_than_the_gate_allows_names_the_key_that_accepts_it() -> None:
    [reason] = decide(run(), wide(0.1201)).reasons
    assert "max_half_width: 0.121 in gate.yaml, loadkit gate --policy gate.yaml" in reason.remedy


@pytest.mark.parametrize(
    "forecast", [wide(0.05045), wide(0.15), expected(status="inconclusive", **REFUSED)]
)
def test_a_cache_that_serves_too_little_fails_whatever_the_forecast(
    forecast: dict[str, Any],
) -> None:
    """Neither needs the forecast's precision."""
    weak = run(reconciliation__usage__cached_tokens=3700)
    answer = decide(weak, forecast)
    assert (answer.verdict, answer.reasons[0].code) == ("FAIL", "cache_underperforms")
    assert "forecast_refused" in [reason.code for reason in answer.reasons]


def test_a_cache_that_serves_too_little_is_no_fault_by_a_forecast_of_another_block_size() -> None:
    """Which of the two sizes is the server's is not known: the prediction may be the wrong one."""
    weak = run(reconciliation__usage__cached_tokens=3700, block_size=32)
    assert verdict(weak) == "INCONCLUSIVE"
    assert sorted(codes(weak)) == ["cache_underperforms", "forecast_refused"]


def test_replays_far_above_any_interval_fail_by_an_unsure_forecast_too() -> None:
    assert codes(mirage(), wide(0.15)) == ["replay_mirage", "forecast_refused"]
    assert verdict(mirage(), wide(0.15)) == "FAIL"
    some = run(
        split__replay_cross_session_rate=0.12,
        split__continuation_rate=0.14,
        split__shared_rate=0.14,
    )
    assert (verdict(some), verdict(some, wide(0.15))) == ("FAIL", "INCONCLUSIVE")


IMPOSSIBLE = {"session": "s1", "turn": 0, "cached_tokens": 64, "prompt_tokens": 90}
IMPOSSIBLE |= {"possible_tokens": 0, "why": "64 cached, at most 0 could have been there"}


@pytest.mark.parametrize(
    ("excess", "unanswered", "answer"),
    [(201, 0, "FAIL"), (200, 0, "INCONCLUSIVE"), (201, 1, "INCONCLUSIVE")],
)
def test_impossible_answers_never_pass_and_fail_where_they_move_the_rate(
    excess: int, unanswered: int, answer: str
) -> None:
    found = run()["reconciliation"]["impossible"] | {"beyond": 2, "excess_tokens": excess}
    lied = run(
        reconciliation__impossible=found | {"first": [IMPOSSIBLE]},
        reconciliation__unanswered_requests=unanswered,
    )
    [reason] = decide(lied, expected()).reasons
    assert (verdict(lied), reason.code, reason.measured) == (answer, "impossible_answers", 2)
    assert "s1 turn 0: 64 cached, at most 0 could have been there" in reason.message
    assert "loadkit run --reset" in reason.remedy
    assert "--set cache=salt" in reason.remedy


COUNTED = {"readings": 9, "restarted": False, "silent": False, "prompt_tokens": 10_000}
COUNTED |= {"queries_short": 0, "queries_over": 0, "hits_short": 0, "hits_over": 0, "at_s": None}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"restarted": True}, "counters_doubtful", "fell, or another process"),
        ({"silent": True, "queries_short": 10_000}, "counters_doubtful", "stood still"),
        ({"queries_short": 5000}, "counters_doubtful", "lack 5,000 of 10,000 prompt tokens"),
        ({"queries_over": 300, "at_s": 8.0}, "counters_doubtful", "300 prompt tokens more"),
        ({"hits_over": 300}, "witnesses_differ", "300 cached tokens apart in mid-run"),
        ({"queries_over": 200, "queries_short": 200, "hits_short": 200}, None, ""),  # two points
    ],
)
def test_counters_that_did_not_count_this_run_alone_decide_nothing(
    change: dict[str, Any], code: str | None, says: str
) -> None:
    found = decide(run(reconciliation__counters=COUNTED | change), expected()).reasons
    assert [reason.code for reason in found] == ([code] if code else [])
    assert all(says in reason.message for reason in found)


def silent(**changes: Any) -> dict[str, Any]:
    """A server whose answers report nothing, and whose counters say what was predicted."""
    same = {"cached_tokens": 4000, "prompt_tokens": 10_000}
    nothing = {"cached_tokens": None, "prompt_tokens": 10_000}
    found = run(split__source="predicted")
    found["reconciliation"] |= {"usage": nothing, "usage_all_phases": nothing, "prometheus": same}
    found["reconciliation"] |= changes
    return found


def test_counters_and_prediction_decide_where_no_answer_says_anything() -> None:
    assert verdict(silent()) == "PASS"
    other = {"cached_tokens": 3700, "prompt_tokens": 10_000}
    assert codes(silent(prometheus=other)) == ["witnesses_differ"]


def test_one_witness_alone_decides_nothing() -> None:
    alone = run()
    for name in ("prediction", "prediction_all_phases"):
        alone["reconciliation"][name] = {"cached_tokens": None, "prompt_tokens": None}
    [reason] = decide(alone, expected()).reasons
    assert (reason.code, verdict(alone)) == ("not_reported", "INCONCLUSIVE")
    assert "nothing confirms it" in reason.message
    alone["reconciliation"]["prometheus"] = {"cached_tokens": 4000, "prompt_tokens": 10_000}
    assert verdict(alone) == "PASS", "the server's own split, and its counters"


def test_prompts_that_the_server_counts_otherwise_cannot_be_judged_one_by_one() -> None:
    most = run(reconciliation__impossible__judged=58)
    assert codes(most) == ["witnesses_differ"]
    assert verdict(run(reconciliation__impossible__judged=60)) == "PASS"


@pytest.mark.parametrize("code", ["torn_journal", "missing_workers"])
def test_hits_that_lost_records_may_explain_are_no_proof_of_a_warm_cache(code: str) -> None:
    lost = {"status": "invalid", "reasons": [{"code": code, "message": "records are lost"}]}
    impossible = {"reconciliation__impossible__beyond": 5}
    impossible["reconciliation__impossible__excess_tokens"] = 4000
    some = run(reconciliation__usage__cached_tokens=4101, **lost, **impossible)
    answer = decide(some, expected())
    assert answer.verdict == "INCONCLUSIVE"
    assert "records are lost" in " ".join(reason.message for reason in answer.reasons)


@pytest.mark.parametrize("cached", [3700, 4101])
def test_figures_of_another_block_size_than_the_forecasts_are_no_fault(cached: int) -> None:
    other = run(block_size=8, reconciliation__usage__cached_tokens=cached)
    answer = decide(other, expected())
    assert answer.verdict == "INCONCLUSIVE"
    assert "forecast_refused" in [reason.code for reason in answer.reasons]


def test_prefix_caching_that_is_off_is_a_fault_at_any_block_size() -> None:
    off = run(block_size=8, endpoint__prefix_caching=False)
    assert verdict(off) == "FAIL"
