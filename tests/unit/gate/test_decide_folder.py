"""The gate on whole run folders: intervals, objectives, baselines, and folders that are damaged."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from gate_builders import UNSPLIT, expected, folder, mirage, rows, run

from loadkit.core.errors import InputError
from loadkit.gate import Verdict, decide_folder
from loadkit.gate.verdict import CODES

SLO = {"ttft_s": 0.5, "share": 0.95}


def judge(
    base: Path,
    data: dict[str, Any],
    requests: list[dict[str, Any]] | None = None,
    forecast: dict[str, Any] | None = None,
    **options: Any,
) -> Verdict:
    at = folder(base / "run", data, requests)
    return decide_folder(at, forecast or expected(), **options)


def with_slo(**slo: Any) -> dict[str, Any]:
    return run(profile={"name": "p", "slo": SLO | slo})


def outcome(verdict: Verdict, code: str) -> str:
    return next(check.outcome for check in verdict.checks if check.code == code)


def test_staging_92_expected_38_is_a_replay_mirage_with_its_figures(tmp_path: Path) -> None:
    """The article's case."""
    verdict = judge(
        tmp_path,
        mirage(),
        forecast=expected(hit_rate={"estimate": 0.38, "low": 0.35, "high": 0.41}),
    )
    assert (verdict.verdict, verdict.exit_code) == ("FAIL", 1)
    [reason] = verdict.reasons
    assert (reason.code, reason.measured, reason.expected) == ("replay_mirage", 0.92, 0.41)
    assert reason.interval == pytest.approx((0.92, 0.92))  # all sessions are alike
    assert "without the replays" in reason.message


def test_the_interval_is_counted_by_sessions_not_by_requests(tmp_path: Path) -> None:
    data = run(split__shared_rate=0.40)
    data["split"] |= {"replay_cross_session_rate": 0.0, "continuation_rate": 0.0}
    table = rows(data)
    for row in table:  # half of the sessions hit 60 tokens of 100, the others 20
        row["shared"] = 60 if int(row["session"][1:]) % 2 == 0 else 20
    verdict = judge(tmp_path, data, table)
    # s = 20 points in each of 20 sessions: t(19) * 20.5 / sqrt(20)
    assert verdict.hit_rate.half_width == pytest.approx(0.0961, abs=0.0005)
    assert verdict.hit_rate.sessions == 20


def test_warm_up_requests_do_not_count(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = folder(tmp_path / "run", run())
    table = pq.read_table(at / "requests.parquet").to_pylist()
    cold = [row | {"phase": "warmup", "shared": 0, "continuation": 0} for row in table]
    every = [*cold, *(row | {"phase": "measured"} for row in table)]
    pq.write_table(pa.Table.from_pylist(every), at / "requests.parquet")
    assert decide_folder(at, expected()).hit_rate.half_width == pytest.approx(0)


def test_every_code_has_one_check_and_what_nobody_asked_is_skipped(tmp_path: Path) -> None:
    verdict = judge(tmp_path, run())
    assert [check.code for check in verdict.checks] == list(CODES)
    assert [c.code for c in verdict.checks if c.outcome == "skipped"] == [
        "counters_doubtful",
        "slo_missed",
        "regression",
    ]
    assert {c.outcome for c in verdict.checks} == {"passed", "skipped"}


@pytest.mark.parametrize(
    ("slow", "verdict"),
    [(0, "PASS"), (3, "PASS"), (4, "INCONCLUSIVE"), (20, "FAIL")],  # of 60; 95% may miss 3
)
def test_objectives_fail_beyond_chance_and_are_open_within_it(
    tmp_path: Path, slow: int, verdict: str
) -> None:
    data = with_slo()
    table = [row | {"ttft_s": 0.9 if n < slow else 0.2} for n, row in enumerate(rows(data))]
    answer = judge(tmp_path, data, table)
    assert answer.verdict == verdict
    codes = [reason.code for reason in answer.reasons]
    assert codes == ([] if verdict == "PASS" else ["slo_missed"])
    if codes:
        [reason] = answer.reasons
        assert reason.measured == pytest.approx((60 - slow) / 60)
        assert reason.interval is not None
        assert f"{slow} over ttft_s 0.5" in reason.message


def test_a_request_without_an_answer_meets_no_objective(tmp_path: Path) -> None:
    data = with_slo() | {"requests": {"scheduled": 66, "ok": 60}}
    failed = [row | {"outcome": "timeout", "ttft_s": None} for row in rows(data)[:6]]
    answer = judge(tmp_path, data, [*rows(data), *failed])
    assert answer.reasons[0].measured == pytest.approx(60 / 66)
    assert "6 without an answer" in answer.reasons[0].message


def test_an_answer_of_one_token_has_no_tpot_to_miss(tmp_path: Path) -> None:
    assert judge(tmp_path, with_slo(tpot_s=0.1), None).verdict == "PASS"


def test_a_handful_of_requests_misses_no_objective_for_sure(tmp_path: Path) -> None:
    few = with_slo() | {"requests": {"scheduled": 3, "ok": 3}}
    few["split"] = few["split"] | {"requests": 3, "sessions": 3}
    answer = judge(tmp_path, few, rows(few, ttft_s=9.0))
    assert answer.verdict == "INCONCLUSIVE"
    assert {reason.code for reason in answer.reasons} == {"too_few_samples", "slo_missed"}


def test_sessions_of_another_seed_are_not_the_same_sessions(tmp_path: Path) -> None:
    old = folder(tmp_path / "old", run(seed=1), rows(run()))
    answer = judge(tmp_path, run(seed=2), rows(run(), ttft_s=0.4), baseline=old)
    assert "(other sessions in both runs)" in answer.reasons[0].message


def baseline(base: Path, **changes: Any) -> Path:
    return folder(base / "old", run(started_unix_s=1.0), rows(run(), **changes))


def test_an_equal_baseline_is_no_regression_and_says_what_it_found(tmp_path: Path) -> None:
    answer = judge(tmp_path, run(), baseline=baseline(tmp_path))
    assert (answer.verdict, outcome(answer, "regression")) == ("PASS", "passed")
    assert answer.baseline is not None
    by_name = {change["figure"]: change for change in answer.baseline["changes"]}
    assert by_name["ttft_s"]["value"] == pytest.approx(1)
    assert by_name["hit_rate"] == by_name["hit_rate"] | {"value": 0, "paired": True, "sessions": 20}


def test_slower_by_a_fifth_is_a_regression_slower_by_a_twentieth_is_not(tmp_path: Path) -> None:
    old = baseline(tmp_path)
    slower = judge(tmp_path / "a", run(), rows(run(), ttft_s=0.24), baseline=old)
    assert [reason.code for reason in slower.reasons] == ["regression", "regression"]  # and e2e
    assert slower.reasons[0].measured == pytest.approx(0.24)
    assert "+20.0%" in slower.reasons[0].message
    assert judge(tmp_path / "b", run(), rows(run(), ttft_s=0.21), baseline=old).verdict == "PASS"


def test_noise_as_large_as_the_change_is_no_regression(tmp_path: Path) -> None:
    noisy = rows(run())
    for row in noisy:  # 20 sessions: half of them twice as slow, half a third faster
        row["ttft_s"] *= 2.0 if int(row["session"][1:]) % 2 else 0.67
    assert judge(tmp_path, run(), noisy, baseline=baseline(tmp_path)).verdict == "PASS"


def test_a_hit_rate_lost_in_every_session_is_a_regression(tmp_path: Path) -> None:
    less = run(split__hit_rate=0.36, split__shared_rate=0.14)
    loose = expected(hit_rate={"estimate": 0.38, "low": 0.34, "high": 0.42})
    answer = judge(tmp_path, less, None, loose, baseline=baseline(tmp_path))
    [reason] = answer.reasons
    assert (reason.code, answer.exit_code) == ("regression", 1)
    assert "-4.0 points" in reason.message


def test_other_sessions_are_compared_as_two_draws(tmp_path: Path) -> None:
    other = [row | {"session": "x" + row["session"]} for row in rows(run(), ttft_s=0.4)]
    answer = judge(tmp_path, run(), other, baseline=baseline(tmp_path))
    assert "(other sessions in both runs)" in answer.reasons[0].message


@pytest.mark.parametrize(
    "change",
    [
        {"block_size": 32}, {"endpoint__model": "other"}, {"started_unix_s": 2.0},
        {"status": "invalid", "reasons": [{"code": "interrupted", "message": ""}]},
        {"profile": {"name": "p", "traffic": {"turns": 2}}},
    ],
)  # fmt: skip
def test_a_baseline_that_cannot_be_compared_leaves_the_question_open(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    old = folder(tmp_path / "old", run(**{"started_unix_s": 1.0} | change), rows(run()))
    answer = judge(tmp_path, run(), baseline=old)
    assert (answer.verdict, answer.exit_code) == ("INCONCLUSIVE", 3)
    assert [reason.code for reason in answer.reasons] == ["regression"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("requests.parquet", b"PAR1 no", r"requests\.parquet: cannot be read .*damaged"),
        ("requests.parquet", None, r"requests\.parquet: cannot be read"),
        ("run.json", b'{"schema": "loadkit.run/1", "seed": NaN}', r"run\.json: not JSON: NaN"),
        ("run.json", b"\xff\xfe", r"run\.json: not JSON"),
        ("run.json", b"[" * 100_000, r"run\.json: not JSON"),
        ("run.json", b'{"schema": "loadkit.run/0"}', r"loadkit\.run/0.*make it again"),
        ("run.json", b'{"schema": "loadkit.run/1"}', r"lacks status: .*older loadkit.*run again"),
    ],
)
def test_a_damaged_folder_is_named_with_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    at = folder(tmp_path / "run", run())
    (at / name).unlink()
    if content is not None:
        (at / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        decide_folder(at, expected())


def test_what_an_older_loadkit_did_not_write_yet_is_named_with_its_version(tmp_path: Path) -> None:
    old = copy.deepcopy(run()) | {"versions": {"loadkit-llm": "0.0.9"}}
    del old["reconciliation"]["usage_all_phases"]
    lacks = r"lacks reconciliation\.usage_all_phases: .*\(version 0\.0\.9\), .*\(run again: "
    with pytest.raises(InputError, match=lacks):
        decide_folder(folder(tmp_path / "old", old), expected())
    forecast = copy.deepcopy(expected()) | {"versions": {"loadkit-llm": "0.0.9"}}
    del forecast["log"]["model"]
    with pytest.raises(InputError, match=r"lacks log\.model: .*0\.0\.9.*\(make the forec"):
        decide_folder(folder(tmp_path / "new", run()), forecast)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shared": 90, "continuation": 90}, "row 1: more hit tokens than prompt tokens"),
        ({"ttft_s": float("inf")}, "row 1, ttft_s: inf cannot be"),
        ({"prompt_tokens": -5}, "row 1, prompt_tokens: -5 cannot be"),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        judge(tmp_path, run(), [row | change for row in rows(run())])


def test_requests_of_another_run_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"answered requests: 9 but 60 in run\.json"):
        judge(tmp_path, run(), rows(run())[:9])


def test_a_forecast_for_another_model_or_template_decides_nothing(tmp_path: Path) -> None:
    for number, log in enumerate(
        ({"tokenizer_fingerprint": "aa", "model": "n"}, {"tokenizer_fingerprint": "cc"})
    ):
        answer = judge(tmp_path / str(number), run(), forecast=expected(log=log))
        assert answer.exit_code == 3
        assert {reason.code for reason in answer.reasons} == {"forecast_refused"}


def test_a_forecast_without_interval_decides_nothing() -> None:
    from loadkit.gate import decide

    bare = expected(hit_rate={"estimate": 0.41})
    assert decide(run(), bare).exit_code == 3
    assert decide(run(), expected(hit_rate={"estimate": 0.41, "method": "exact"})).exit_code == 0


def test_a_forecast_outside_its_own_interval_is_refused() -> None:
    from loadkit.gate import decide

    with pytest.raises(InputError, match="outside its interval"):
        decide(run(), expected(hit_rate={"estimate": 0.9, "low": 0.1, "high": 0.2}))


def test_no_traffic_is_exit_3_even_with_a_forecast_of_nothing(tmp_path: Path) -> None:
    none = {"code": "too_few_samples", "message": "no request was sent"}
    empty = run(
        status="invalid", reasons=[none], requests={"scheduled": 0, "ok": 0}, split=UNSPLIT, profile={"name": "p", "slo": SLO},
    )  # fmt: skip
    forecast = expected(hit_rate={"estimate": 0.0, "low": 0.0, "high": 0.0})
    answer = judge(tmp_path, empty, [], forecast)
    assert (answer.exit_code, [r.code for r in answer.reasons]) == (3, ["too_few_samples"])


def test_an_answer_without_cached_tokens_is_never_a_rate_of_zero(tmp_path: Path) -> None:
    silent = run(reconciliation__usage__cached_tokens=None)
    silent["split"] = UNSPLIT
    forecast = expected(hit_rate={"estimate": 0.0, "low": 0.0, "high": 0.01})
    answer = judge(tmp_path, silent, None, forecast)
    assert (answer.exit_code, answer.hit_rate.measured) == (3, None)
    assert [reason.code for reason in answer.reasons] == ["not_reported"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema: loadkit.gate-policy/1\nmin_sesions: 3\n", "min_sesions: Extra"),
        ("schema: loadkit.gate-policy/1\nallowance: 2\n", "allowance: .*less than or equal to 0.1"),
        ("schema: loadkit.gate-policy/1\nallowance: .nan\n", "allowance: .*finite"),
        ("min_sessions: 3\n", "schema: Field required"),
        ("- 1\n", "not a mapping"),
        ("a: &x [1]\nb: *x\n", "aliases are not allowed"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_by_its_key(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        judge(tmp_path, run(), policy_file=tmp_path / "gate.yaml")


def test_thresholds_come_from_the_file_else_the_profile_else_ours(tmp_path: Path) -> None:
    strict = run(profile={"name": "p", "gate": {"min_sessions": 21}, "slo": SLO})
    answer = judge(tmp_path / "a", strict)
    assert (answer.verdict, answer.thresholds_from) == ("INCONCLUSIVE", "the profile p")
    (tmp_path / "gate.yaml").write_text(
        "schema: loadkit.gate-policy/1\nmin_sessions: 20\nslo: {ttft_s: 0.1}\n"
    )
    answer = judge(tmp_path / "b", strict, policy_file=tmp_path / "gate.yaml")
    assert answer.thresholds["min_sessions"] == 20
    assert [reason.code for reason in answer.reasons] == ["slo_missed"]
    assert judge(tmp_path / "c", run()).thresholds_from == "loadkit's defaults"


def test_a_late_open_loop_is_invalid_timing_by_the_policys_limit(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "schema: loadkit.gate-policy/1\nmax_schedule_delay_p99_s: 0.05\n"
    )
    late = run(loop="open", schedule_delay_s={"p99": 0.2})
    answer = judge(tmp_path / "a", late, policy_file=tmp_path / "gate.yaml")
    assert [reason.code for reason in answer.reasons] == ["invalid_timing"]
    closed = late | {"loop": "closed"}
    assert judge(tmp_path / "b", closed, policy_file=tmp_path / "gate.yaml").verdict == "PASS"


def test_a_forecast_without_fingerprint_is_noted_or_refused_as_the_policy_says(
    tmp_path: Path,
) -> None:
    bare = expected(log={"tokenizer_fingerprint": None})
    answer = judge(tmp_path / "a", run(), forecast=bare)
    assert answer.verdict == "PASS"
    assert "names no tokenizer" in answer.notes[1]
    (tmp_path / "gate.yaml").write_text(
        "schema: loadkit.gate-policy/1\nrequire_fingerprints: true\n"
    )
    answer = judge(tmp_path / "b", run(), forecast=bare, policy_file=tmp_path / "gate.yaml")
    assert [reason.code for reason in answer.reasons] == ["forecast_refused"]


def test_the_verdict_is_plain_json(tmp_path: Path) -> None:
    data = judge(tmp_path, with_slo(), baseline=baseline(tmp_path)).to_dict()
    read = json.loads(json.dumps(data, allow_nan=False))
    assert set(read) == {
        "schema", "verdict", "reasons", "hit_rate", "checks", "notes", "baseline", "thresholds",
        "thresholds_from",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split__hit_rate": 0.38}, "hit rate: 0.4 but 0.38 in run.json"),
        ({"split__sessions": 30}, "sessions with a split: 20 but 30"),
        ({"split__replay_cross_session_rate": 0.0}, "replay_cross_session rate: 0.02 but 0 in"),
        ({"split__requests": 59}, "requests with a split: 60 but 59"),
        ({"left": 7}, "requests that users left: 0 but 7"),
    ],
)
def test_an_edited_run_json_is_not_what_its_rows_add_up_to(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    at = folder(tmp_path / "run", run(**change), rows(run()))
    with pytest.raises(InputError, match=says):
        decide_folder(at, expected())


def test_one_giant_session_does_not_speak_for_twenty(tmp_path: Path) -> None:
    """19 sessions of 300 tokens and one of 30,000: (35,700)^2 / (30,000^2 + 19 * 300^2) = 1.41."""
    table = rows(run())
    for row in table:
        if row["session"] == "s0":
            row |= {
                k: 100 * row[k]
                for k in (
                    "prompt_tokens",
                    "cached_tokens",
                    "replay_cross_session",
                    "continuation",
                    "shared",
                )
            }
    [reason] = judge(tmp_path, run(), table).reasons
    assert (reason.code, reason.measured) == ("too_few_samples", pytest.approx(1.4134, abs=1e-3))
    assert "the largest of 20 sessions has 84% of all prompt tokens" in reason.message


def test_a_time_that_the_baseline_has_and_the_run_has_not_leaves_the_question_open(
    tmp_path: Path,
) -> None:
    answer = judge(
        tmp_path,
        run(),
        [row | {"ttft_s": None} for row in rows(run())],
        baseline=baseline(tmp_path),
    )
    assert (
        "time to first token (geometric mean) of this run cannot be" in answer.reasons[-1].message
    )
    assert answer.exit_code != 0


def test_no_gate_file_switches_a_check_off(tmp_path: Path) -> None:
    """The loosest file there can be, and the article's case fails all the same."""
    (tmp_path / "gate.yaml").write_text(
        "schema: loadkit.gate-policy/1\nconfidence: 0.999\nallowance: 0.1\nmax_half_width: 0.2\n"
        "min_answered_share: 0.5\nmax_unreported_share: 0.1\nmax_capacity_difference: 0.2\n"
        "max_wraps: 1000000\nmin_sessions: 3\nmin_requests: 2\nmax_expected_replay: 1\n"
        "min_effective_sessions: 2\n"
    )
    low = expected(hit_rate={"estimate": 0.38, "low": 0.35, "high": 0.41})
    answer = judge(tmp_path, mirage(), None, low, policy_file=tmp_path / "gate.yaml")
    assert [reason.code for reason in answer.reasons] == ["replay_mirage"]
    assert "tolerates more than loadkit does: confidence" in answer.notes[-1]


def test_prompts_shorter_than_the_servers_blocks_are_named(tmp_path: Path) -> None:
    found = judge(tmp_path, run(block_size=5280), forecast=expected(scenario__block_size=5280))
    assert any(note.startswith("no prompt reaches 5,281 tokens") for note in found.notes)
    found = judge(tmp_path / "b", run(), forecast=expected())
    assert not any("no prompt reaches" in note for note in found.notes)
