"""Profiles: every mistake is named with file and key, and hostile YAML stays small."""

from pathlib import Path

import pytest

from loadkit import profiles
from loadkit.core.errors import InputError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "profile.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def bundled_text(name: str) -> str:
    return profiles.find(name).read_text("utf-8")


@pytest.mark.parametrize("name", profiles.names())
def test_every_bundled_profile_loads_under_its_folder_name_and_has_a_readme(name: str) -> None:
    assert profiles.load(name).name == name
    assert (profiles.find(name).parent / "README.md").is_file()


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, bundled_text("replay-smoke") + "max_durations: 3\n")
    with pytest.raises(InputError, match=r"profile\.yaml: max_durations: unknown key"):
        profiles.load(path)


def test_an_unknown_key_deep_inside_is_named_with_its_path() -> None:
    with pytest.raises(InputError, match=r"--set traffic\.wrapping: unknown key .*`wrap`"):
        profiles.load("replay-smoke", ["traffic.wrapping=allow"])


def test_a_wrong_type_names_the_key_and_the_value() -> None:
    with pytest.raises(
        InputError, match=r"--set arrivals\.users: expected a whole number, got 'x'$"
    ):
        profiles.load("replay-smoke", ["arrivals.users=x"])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "traffic.nope=1",
            r"--set traffic\.nope: unknown key \(known here: kind, corpus, sessions",
        ),
        ("traffic.sesions=1", r"--set traffic\.sesions: unknown key \(did you mean `sessions`\?\)"),
        ("traffic.sessions=two", "--set traffic.sessions: expected a whole number, got 'two'"),
        ("arrivals={loop: closed}", "--set arrivals: arrivals.users: missing"),
        ("traffic.kind=x", "--set traffic.kind: expected one of 'conversation', .*, got 'x'"),
        ("expected.hit_rate_low=0.9", "expected: `hit_rate_low` is above `hit_rate_high`"),
        ("traffic=3", "--set traffic: expected a section with keys of its own, got 3"),
        ("arrivals=null", "--set arrivals: expected a section with keys of its own, got nothing"),
        (
            "traffic.think_s={distribution: constant, mean: 1}",
            r"think_s\.max: missing; also wrong: traffic\.think_s\.source$",
        ),
        ("arrivals={a: 1, b: 2, c: 3, d: 4, loop: closed}", "and 1 more"),
        ("arrivals={loop:closed}", r"--set arrivals: 'loop:closed' is one word \(YAML wants a spa"),
        ("seed=-1", "--set seed: must be at least 0, got -1"),
        ("request.ignore_eos=7", "--set request.ignore_eos: expected true or false, got 7"),
        (
            "request.max_tokens.distribution=constant",
            "request.max_tokens: constant takes mean, min, max; `median` would have no effect$",
        ),
        (
            "traffic.turns.median=2",
            "traffic.turns: geometric takes mean, min, max; `median` would have no effect$",
        ),
    ],
)
def test_a_wrong_setting_is_told_in_plain_words_under_its_own_name(setting: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        profiles.load("chat-assistant", [setting])


def test_a_key_missing_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, bundled_text("replay-smoke").replace("  users: 4\n", ""))
    with pytest.raises(InputError, match=r"profile\.yaml: arrivals\.users: missing$"):
        profiles.load(path)


def test_a_setting_overrides_one_value_and_leaves_the_rest() -> None:
    changed = profiles.load("replay-smoke", ["arrivals.users=7", "seed=9"])
    assert changed.model_dump(exclude={"seed", "arrivals"}) == profiles.load(
        "replay-smoke"
    ).model_dump(exclude={"seed", "arrivals"})
    assert (changed.seed, changed.arrivals.users) == (9, 7)  # type: ignore[union-attr]


@pytest.mark.parametrize("setting", ["arrivals.users", "=3", "name.x=3"])
def test_a_setting_that_cannot_be_applied_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match="--set"):
        profiles.load("replay-smoke", [setting])


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"profile\.yaml:2: not valid YAML"):
        profiles.load(written(tmp_path, "schema: loadkit.profile/1\nname: [a}\n"))


def test_a_bomb_of_aliases_is_refused_at_its_first_alias(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(InputError, match="aliases are not allowed"):
        profiles.load(written(tmp_path, "\n".join(lines)))


def test_deep_nesting_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not valid YAML"):
        profiles.load(written(tmp_path, "[" * 20_000))


def test_a_file_over_a_mebibyte_is_not_even_parsed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="larger than 1 MiB"):
        profiles.load(written(tmp_path, "#" * (profiles.MAX_PROFILE_BYTES + 1)))


def test_a_python_object_in_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not valid YAML"):
        profiles.load(written(tmp_path, "name: !!python/object/apply:os.system ['true']\n"))


def test_a_profile_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(InputError, match="chat-assistant, coding-agent"):
        profiles.load("no-such-profile")


def test_replay_needs_exactly_one_origin_of_prompts() -> None:
    with pytest.raises(InputError, match="exactly one of `log` and `corpus`"):
        profiles.load("replay-smoke", ["traffic.corpus=null"])


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("traffic.message_sentences.mean=.nan", r"traffic\.message_sentences\.mean"),
        ("max_duration_s=.inf", "max_duration_s"),
        ("arrivals={loop: open, rate_per_s: 1e-300}", r"arrivals\.rate_per_s"),
        (
            "request.max_tokens={distribution: lognormal, median: -1, sigma: 1, max: 3, source: x}",
            r"request\.max_tokens\.median",
        ),
        ("seed=2024-99-99", "--set seed"),
        ("seed=" + "[" * 20_000, "--set seed"),
    ],
)
def test_a_number_that_no_plan_can_be_made_of_is_refused(setting: str, place: str) -> None:
    with pytest.raises(InputError, match=place):
        profiles.load("replay-smoke", [setting])


def test_a_scalar_that_only_looks_like_a_date_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"profile\.yaml: not valid YAML"):
        profiles.load(written(tmp_path, "seed: 2024-99-99\n"))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        profiles.load(str(path))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "traffic.parts.0.traffic.turns.mean=x",
            r"--set traffic\.parts\.0\.traffic\.turns\.mean: expected a number, got 'x'$",
        ),
        (
            "traffic.parts.1.traffic.stepz=3",
            r"--set traffic\.parts\.1\.traffic\.stepz: unknown key \(did you mean `steps`\?\)",
        ),
        (
            "traffic.parts.0.traffic.kind=mixture",
            r"--set traffic\.parts\.0\.traffic\.kind: expected one of 'conversation'.*'mixture'$",
        ),
        ("traffic.parts.9.weight=1", "'9' in 'traffic.parts.9.weight' is not one of 0 to 4"),
        ("traffic.parts.first.weight=1", "'first' in .* is not one of 0 to 4"),
        ("arrivals.diurnal.hourly=[1, x]", r"arrivals\.diurnal\.hourly\.1: expected a number"),
        ("arrivals.stages=[{rate_per_s: 1}]", r"arrivals\.stages\.0\.duration_s: missing"),
    ],
)
def test_a_mistake_deep_in_a_mixture_is_named_as_it_stands_in_the_file(
    setting: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        profiles.load("mixed-production", [setting])


def test_a_list_is_changed_by_the_number_of_its_entry() -> None:
    changed = profiles.load("mixed-production", ["traffic.parts.1.weight=20"])
    assert changed.traffic.parts[1].weight == 20  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "setting", "says"),
    [
        ("chat-assistant", "traffic.sessions=null", "--set traffic.sessions: missing$"),
        ("batch-eval", "traffic.runs=null", "--set traffic.runs: missing$"),
        ("batch-eval", "warmup_s=3", "--set warmup_s: a closed loop has no planned times"),
        ("chat-assistant", "request.api=completions", "--set request.api: completions have no"),
        (
            "chat-assistant",
            "traffic.message_tokens={distribution: constant, mean: 9, max: 9, source: x}",
            "exactly one of `message_sentences` and `message_tokens` is needed, not both",
        ),
        (
            "chat-assistant",
            "traffic.system_prompts.tokens=9",
            "give `sentences` or `tokens`, not both",
        ),
        (
            "chat-assistant",
            "traffic.turns={distribution: choice, values: [1, 2], weights: [1], max: 2, source: x}",
            "as many `weights` as `values`",
        ),
        ("mixed-production", "traffic.sessions=null", "`sessions` is missing"),
    ],
)
def test_sections_that_do_not_fit_together_are_named_by_the_key_to_change(
    name: str, setting: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        profiles.load(name, [setting])


def test_the_schema_accepts_every_bundled_profile_and_refuses_a_misspelt_key() -> None:
    """Checked by another library than the one that made it, where that is installed."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = profiles.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in profiles.names():
        assert not list(validator.iter_errors(profiles.load_yaml(profiles.find(name))))
    wrong = profiles.load_yaml(profiles.find("batch-eval")) | {"seeed": 3}
    assert list(validator.iter_errors(wrong))
