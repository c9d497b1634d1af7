"""`loadkit prelaunch`: stages, what is kept, budgets, and the gate's exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command import Answer, Call
from prelaunch_world import World

from loadkit import profiles
from loadkit.client.cache_setup import CacheSetup
from loadkit.client.control import ModelCard
from loadkit.core.errors import InputError
from loadkit.prelaunch import Budget, check_budget, cost_of, parse_budget, stages
from loadkit.traffic.plan import SessionPlan, TrafficPlan, Turn

PROFILE = "replay-smoke"


def launch(loadkit: Call, world: World, out: Path, *extra: Any) -> Answer:
    options = ["--url", "http://127.0.0.1:1", "--tokenizer", world.tokenizer]
    return loadkit("prelaunch", PROFILE, "-o", out, "--log", world.log, *options, *extra)


def test_one_command_makes_forecast_run_verdict_and_report(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    world.gives = [world.staging]
    out = tmp_path / "out"
    done = launch(loadkit, world, out, "--json", "--junit", tmp_path / "j.xml")
    assert done.code == 1, done.err
    answer = json.loads(done.out)
    assert answer["gate"]["reasons"][0]["code"] == "replay_mirage"
    assert answer["stages"] == dict.fromkeys(("forecast", "run", "gate", "report"), "made")
    assert {path.name for path in out.iterdir()} == {
        "prelaunch.json", "expected.json", "run", "gate.json", "report.html"
    }  # fmt: skip
    assert "replay_mirage" in (out / "report.html").read_text()
    assert json.loads((out / "gate.json").read_text()) == answer["gate"]
    expected = json.loads((out / "expected.json").read_text())
    assert expected["scenario"]["capacity_blocks"] == 1500  # the server's, by itself
    assert expected["log"]["model"] == "SmolLM2-135M-Instruct"
    assert (tmp_path / "j.xml").is_file()


def test_production_like_traffic_passes(loadkit: Call, world: World, tmp_path: Path) -> None:
    world.gives = [world.production]
    done = launch(loadkit, world, tmp_path / "out")
    assert (done.code, done.out.split()[0]) == (0, "PASS")


def test_an_interrupted_run_goes_on_with_the_forecast_kept(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stopped = launch(loadkit, world, out)
    assert stopped.code == 130
    world.gives = [world.production]
    again = launch(loadkit, world, out)
    assert again.code == 0
    assert "Forecast: kept from just before" in again.err
    once_more = launch(loadkit, world, out, "--json")
    assert json.loads(once_more.out)["stages"]["run"] == "kept"
    assert len(world.asked) == 2


def test_a_run_that_is_not_valid_is_kept_aside_and_made_again(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(world.production, broken)
    run = json.loads((broken / "run.json").read_text())
    reason = {"code": "interrupted", "message": "the run was interrupted"}
    (broken / "run.json").write_text(json.dumps(run | {"status": "invalid", "reasons": [reason]}))
    world.gives = [broken, world.production]
    assert launch(loadkit, world, tmp_path / "out").code == 3
    again = launch(loadkit, world, tmp_path / "out")
    assert (again.code, len(world.asked)) == (0, 2)
    assert (tmp_path / "out" / "run.invalid-1" / "run.json").is_file()


def test_other_inputs_never_reuse_a_stage(loadkit: Call, world: World, tmp_path: Path) -> None:
    world.gives = [world.production]
    assert launch(loadkit, world, tmp_path / "out").code == 0
    other = launch(loadkit, world, tmp_path / "out", "--set", "seed=9", "--processes", 2)
    assert other.code == 2
    assert "processes, profile.seed changed" in other.err
    assert len(world.asked) == 1


def test_a_folder_in_which_nothing_was_finished_takes_other_inputs(
    loadkit: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a wrong address, which is put right in the next call."""

    def no_answer(job: stages.Job, url: str) -> ModelCard:
        raise InputError("no answer from the server", where=url)

    right = stages._card
    monkeypatch.setattr(stages, "_card", no_answer)
    assert launch(loadkit, world, tmp_path / "out").code == 2
    monkeypatch.setattr(stages, "_card", right)
    world.gives = [world.production]
    options = ["--log", world.log, "--tokenizer", world.tokenizer, "--url", "http://127.0.0.1:2"]
    assert loadkit("prelaunch", PROFILE, "-o", tmp_path / "out", *options).code == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("expected.json", '{"schema"', "not JSON"),
        ("expected.json", "{}", "not of schema loadkit.forecast/1"),
        ("run/run.json", None, "no run.json here"),
        ("run/run.json", '{"schema": "loadkit.run/2"}', "written by loadkit ?"),
    ],
)
def test_a_stage_that_was_damaged_says_how_to_go_on(
    loadkit: Call, world: World, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    world.gives, out = [world.production], tmp_path / "out"
    assert launch(loadkit, world, out).code == 0
    (out / name).unlink()
    if content is not None:
        (out / name).write_text(content)
    again = launch(loadkit, world, out)
    assert again.code == 2
    [error] = [line for line in again.err.splitlines() if "remove " in line]
    assert f"remove {out / name.split('/')[0]}, and it is made again" in error
    assert says in error
    assert len(world.asked) == 1


def test_what_a_killed_run_left_is_told_before_its_prompts_are_sent_again(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    world.gives, out = [world.production], tmp_path / "out"
    assert launch(loadkit, world, out).code == 0
    shutil.rmtree(out / "run")
    (out / ".run.work-x").mkdir()
    world.gives = [world.production]
    again = launch(loadkit, world, out)
    assert "An earlier run was killed" in again.err
    assert "be called warm" in again.err


def test_the_gates_own_files_may_change_between_calls(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    world.gives = [world.production]
    assert launch(loadkit, world, tmp_path / "out").code == 0
    (tmp_path / "gate.yaml").write_text("schema: loadkit.gate-policy/1\nmin_sessions: 1000\n")
    strict = launch(loadkit, world, tmp_path / "out", "--policy", tmp_path / "gate.yaml")
    assert strict.code == 3
    assert len(world.asked) == 1


def test_a_refused_forecast_costs_no_request(loadkit: Call, world: World, tmp_path: Path) -> None:
    done = launch(loadkit, world, tmp_path / "out", "--traffic", "20x")  # of 60 sessions
    assert done.code == 3
    assert "nothing was sent" in done.err
    assert world.asked == []


def test_a_forecast_made_before_is_taken_as_it_is(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    world.gives = [world.production, world.production]
    assert launch(loadkit, world, tmp_path / "a").code == 0
    known = tmp_path / "a" / "expected.json"
    out = tmp_path / "b"
    options = ["--url", "http://127.0.0.1:1", "--expected", known, "-o", out]
    assert loadkit("prelaunch", PROFILE, *options).code == 0
    assert json.loads((out / "expected.json").read_text()) == json.loads(known.read_text())


@pytest.mark.parametrize("extra", [["--dry-run"], ["--budget", "59req"], ["--budget", "1tok"]])
def test_a_dry_run_and_a_budget_come_before_anything_is_made(
    loadkit: Call, world: World, tmp_path: Path, extra: list[str]
) -> None:
    done = launch(loadkit, world, tmp_path / "out", *extra)
    assert done.code == (0 if extra == ["--dry-run"] else 2)
    assert ("60 requests in 60 sessions" in done.out) is (extra == ["--dry-run"])
    assert not (tmp_path / "out").exists()
    assert world.asked == []


def test_without_a_log_or_forecast_there_is_nothing_to_expect(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    done = loadkit("prelaunch", PROFILE, "-o", tmp_path / "out", "--url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "--log" in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("dear")
    done = launch(loadkit, world, tmp_path)
    assert done.code == 2
    assert (tmp_path / "mine").read_text() == "dear"


def test_a_plans_cost_by_hand() -> None:
    """8 and 4 characters of message are 2 tokens and 1; replies are at most 10 and 5 tokens."""
    say = [{"role": "user", "content": text} for text in ("a" * 8, "b" * 4)]
    live = SessionPlan(
        "s", 3.0, (Turn((say[0],), 10), Turn((say[1],), 5, think_s=7.0)), name="chat"
    )
    recorded = msgspec.structs.replace(
        live, session="r", start_s=0.0, turns=(Turn((say[0],), 10, recorded_reply="c" * 4), live.turns[1])
    )  # fmt: skip
    profile = profiles.load("chat-assistant")
    cost = cost_of(TrafficPlan("conversation", (live, recorded)), profile)
    # live: 2, then 2 + 10 + 1; recorded: 2, then 2 + 1 + 1
    assert (cost.prompt_tokens, cost.output_tokens) == (2 + 13 + 2 + 4, 30)
    assert (cost.sessions, cost.requests, cost.is_estimate) == (2, 4, True)
    assert cost.at_least_s == 10.0
    exact = cost_of(TrafficPlan("conversation", (live,)), profile, len)
    assert (exact.prompt_tokens, exact.is_estimate) == (8 + 8 + 10 + 4, False)


def test_rows_of_a_replayed_session_cost_what_they_hold() -> None:
    """A row is sent as it was logged, history included: 1 token, then 3, not 1 + 9 + 3 on top."""
    first = SessionPlan(
        "s", 0.0, (Turn(({"role": "user", "content": "a" * 4},), 9),), name="replay"
    )
    second = SessionPlan(
        "s", 1.0, (Turn(({"role": "user", "content": "a" * 12},), 9),), name="replay", first_turn=1
    )
    cost = cost_of(TrafficPlan("replay", (first, second)), profiles.load("replay-smoke"))
    assert (cost.prompt_tokens, cost.output_tokens) == (1 + 3, 18)
    assert (cost.sessions, cost.requests) == (1, 2)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("500req", Budget(500, None)),
        ("2Mtok", Budget(None, 2_000_000)),
        ("1.5kreq, 3ktok", Budget(1500, 3000)),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "500", "req", "1req,2req", "-1tok", "1e9tok"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)


def test_a_plan_of_exactly_the_budget_is_sent() -> None:
    say = ({"role": "user", "content": "abcd"},)
    plan = TrafficPlan("corpus", (SessionPlan("s", 0.0, (Turn(say, 9),), name="n"),))
    cost = cost_of(plan, profiles.load("chat-assistant"))
    check_budget(cost, Budget(1, 10))
    with pytest.raises(InputError, match=r"about 10 tokens, the budget is 9"):
        check_budget(cost, Budget(None, 9))


def test_without_a_tokenizer_the_endpoint_is_asked_for_lengths_in_tokens(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    """Nobody listens there, and that is what the error says, not that a tokenizer is missing."""
    file = tmp_path / "exact.yaml"
    file.write_text(
        "schema: loadkit.profile/1\nname: exact\nsummary: test\nseed: 1\n"
        "traffic:\n  kind: corpus\n  corpus: assistant-chat\n  requests: 3\n"
        "  prompt_tokens: {distribution: constant, mean: 40, max: 40, source: test}\n"
        "arrivals: {loop: closed, users: 1}\n"
        "request:\n  max_tokens: {distribution: constant, mean: 4, max: 4, source: test}\n"
        "max_duration_s: 10\n"
    )
    options = ["--log", world.log, "--url", "http://127.0.0.1:1", "-o", tmp_path / "out"]
    done = loadkit("prelaunch", file, *options)
    assert done.code == 2
    assert "http://127.0.0.1:1" in done.err


def test_reset_empties_the_cache_and_may_follow_a_run_that_failed(
    loadkit: Call, world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert launch(loadkit, world, out).code == 130
    world.gives = [world.production]
    again = launch(loadkit, world, out, "--reset")
    assert (again.code, "Forecast: kept" in again.err) == (0, True), again.err
    assert [profile.cache for profile in world.sent] == ["as_is", "reset"]
    other = launch(loadkit, world, out)
    assert (other.code, "profile.cache changed" in other.err) == (2, True)


def test_the_forecast_is_for_the_cache_that_metrics_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's model list says nothing of its cache; a forecast for no limit could never pass there."""

    class Vllm:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> Vllm:
            return self

        def __exit__(self, *_: Any) -> None: ...
        def list_models(self) -> list[ModelCard]:
            return [ModelCard("m")]

        def cache_setup(self) -> CacheSetup:
            return CacheSetup(engines=2, block_size=32, num_blocks=800)

    monkeypatch.setattr(stages, "ControlPlane", Vllm)
    job = stages.Job(profiles.load(PROFILE), TrafficPlan("replay", ()), tmp_path)
    card = stages._card(job, "http://127.0.0.1:1")
    assert (card.block_size, card.num_blocks) == (32, 400)  # of one engine, as a run names it


HYBRID = {  # a state of 35,072 bytes beside 256 bytes a token: blocks of 144
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "dtype": "bfloat16",
    "layer_types": ["mamba", "attention"],
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_n_groups": 1,
    "mamba_d_state": 64,
    "mamba_d_conv": 4,
}


def test_the_forecast_is_for_the_servers_blocks_and_says_so(
    loadkit: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = ModelCard("SmolLM2-135M-Instruct", block_size=32, num_blocks=1500, kept_blocks=(1,))
    monkeypatch.setattr(stages, "_card", lambda job, url: card)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(HYBRID))
    world.gives = [world.production]
    done = launch(loadkit, world, tmp_path / "out", "--model-config", config)
    assert "--model-config gives blocks of 144 tokens, the server says 32, which counts" in done.err
    expected = json.loads((tmp_path / "out" / "expected.json").read_text())
    assert expected["scenario"]["block_size"] == 32
    world.gives = [world.production]
    done = launch(loadkit, world, tmp_path / "other")
    assert "The server's cache has blocks of 32 tokens: the forecast is for them" in done.err


def test_a_server_that_tells_no_block_size_is_forecast_by_the_models_config(
    loadkit: Call, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_card", lambda job, url: ModelCard("SmolLM2-135M-Instruct"))
    (tmp_path / "config.json").write_text(json.dumps(HYBRID))
    world.gives = [world.production]
    done = launch(loadkit, world, tmp_path / "out", "--model-config", tmp_path)
    assert "The server tells no block size; --model-config gives blocks of 144 tokens" in done.err
    expected = json.loads((tmp_path / "out" / "expected.json").read_text())
    assert expected["scenario"]["block_size"] == 144
    assert world.asked[-1]["choices"].block_size == 144
