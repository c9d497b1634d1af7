"""What every bundled profile promises: its traffic hits as its range says, and nothing by accident.

Each is planned (the longest with fewer sessions), tokenised and analyzed in a cache without
limit. Live replies, which nobody knows yet, are as many words as the plan lets them have tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from corpus_model import corpus_tokenizer, corpus_words

from loadkit import corpora, profiles
from loadkit.core.tokenizer import Tokenizer
from loadkit.planning import FreshnessReport, check_fresh
from loadkit.profiles import Profile
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import SessionPlan, Turn

# Of the longest a part, to save time, which lowers its rate: tasks end earlier, sessions share less.
# `benchmarks/bundled_profiles.py plans` counts all of it.
SAMPLES = {"coding-agent": ("traffic.sessions=6", "traffic.steps.max=20")}
# What others published for services of this kind; a range must hold these.
PUBLISHED = {
    "chat-assistant": {"Mooncake conversation": 0.40, "SGLang": 0.524, "Alibaba consumer": 0.62},
    "multilingual-chat": {"Mooncake conversation": 0.40, "SGLang": 0.524, "SGLang's best": 0.741},
    "support-bot": {"SGLang's best": 0.741},
    "doc-qa": {"Mooncake synthetic": 0.66},
    "coding-agent": {"WEKA, low": 0.93, "WEKA, median": 0.96},
    "tool-agent": {"Mooncake tool and agent": 0.59, "Alibaba business": 0.54},
    "single-turn-organic": {"arena-hard": 0.0},
    "mixed-production": {"Alibaba business": 0.54, "DeepSeek": 0.563, "Alibaba consumer": 0.62},
}
MIRAGES = {"batch-eval", "replay-smoke"}


@pytest.fixture(scope="module")
def words() -> list[str]:
    """Words of the corpora, for replies."""
    return corpus_words()


@pytest.fixture(scope="module")
def tokenizer(words: list[str]) -> Tokenizer:
    """One whose template shows tools, as those of agents' models do."""
    return Tokenizer(corpus_tokenizer(words), "corpora")


@pytest.fixture
def analyze(tokenizer: Tokenizer, words: list[str]) -> Callable[[Profile], FreshnessReport]:
    def reply(session: SessionPlan, number: int, turn: Turn) -> str:
        return " ".join(Random(f"{session.session} {number}").choices(words, k=turn.max_tokens))

    return lambda profile: check_fresh(build_plan(profile), tokenizer, 16, reply=reply)


@pytest.mark.parametrize("name", profiles.names())
def test_a_bundled_profile_hits_as_its_range_says_and_nothing_by_accident(
    name: str, analyze: Callable[[Profile], FreshnessReport]
) -> None:
    profile = profiles.load(name, SAMPLES.get(name, ()))
    found = analyze(profile)
    assert found.accidental == 0
    assert found.hit_rate is not None
    if profile.expected is None:
        assert name in MIRAGES
        # Nothing but what was sent before: the range of a mirage is how often it is sent.
        assert found.repeats / found.prompt_tokens > 0.6
    else:
        assert profile.expected.hit_rate_low <= found.hit_rate <= profile.expected.hit_rate_high
        for cause in ("continuation", "shared"):
            low, high = told(name, cause)
            assert low <= 100 * getattr(found, cause) / found.prompt_tokens <= high, cause


def told(name: str, cause: str) -> tuple[float, float]:
    """Points of the hit rate that a profile's README gives a cause."""
    text = (profiles.find(name).parent / "README.md").read_text("utf-8").partition("**Expected")[2]
    found = re.search(rf"{cause} (\d+) to (\d+)", text.replace("\n", " "), re.IGNORECASE)
    assert found, f"{name}'s README says nothing of {cause}"
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("name", sorted(set(profiles.names()) - MIRAGES))
def test_a_range_holds_what_was_published_or_says_that_nothing_was(name: str) -> None:
    expected = profiles.load(name).expected
    assert expected is not None
    if name not in PUBLISHED:
        assert "arithmetic, not published" in expected.source
        return
    assert "published" in expected.source
    for service, rate in PUBLISHED[name].items():
        assert expected.hit_rate_low <= rate <= expected.hit_rate_high, service


@pytest.mark.parametrize("name", profiles.names())
def test_every_bundled_profile_tells_why_sources_expectation_and_impact(name: str) -> None:
    text = (profiles.find(name).parent / "README.md").read_text("utf-8")
    assert "**Why" in text
    assert "**Where the numbers come from.**" in text
    assert "**Expected.**" in text
    assert "**What it does to a server.**" in text


def test_there_are_the_profiles_and_corpora_that_the_shelves_promise() -> None:
    assert len(profiles.names()) >= 10
    assert len(corpora.names()) >= 7
