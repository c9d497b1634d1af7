"""The page for everybody: contrast, keyboard, words for pictures, size."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from report_builders import Example, make_run, production_records

from loadkit.report import build, render

STYLE = (files("loadkit.report") / "templates" / "style.css").read_text("utf-8")
TEXT = [  # (words, what they stand on): WCAG 1.4.3 asks for 4.5
    *(("ink", "page"), ("ink", "card"), ("quiet", "page"), ("quiet", "card")),
    *(("replay", "card"), ("continuation", "page"), ("on-miss", "miss"), ("on-miss", "evicted")),
    *(("white", "pass"), ("white", "fail"), ("white", "open"), ("bad", "card"), ("good", "card")),
    *(("on-cause", "continuation"), ("on-cause", "shared"), ("on-cause", "replay")),
    ("on-own", "replay-own"),
]
GRAPHICS = [  # WCAG 1.4.11 asks for 3
    *((name, "card") for name in ("continuation", "shared", "replay", "replay-own")),
    *((name, "card") for name in ("evicted", "quiet", "ink", "open")),
]


def colours(theme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.S)[:2]
    names = dict(re.findall(r"--([\w-]+): (#\w{6})", light))
    names |= {
        "white": "#ffffff",
        "on-cause": "#ffffff",
        "bad": names["fail"],
        "good": names["pass"],
    }
    if theme == "dark":
        names |= dict(re.findall(r"--([\w-]+): (#\w{6})", dark))
        # the style sheet's own dark exceptions
        [bad, good] = re.findall(r"\.(?:bad|good) \{ color: (#\w{6}); \}", STYLE)
        [cause] = re.findall(r"svg \.on-continuation[^{]*\{ fill: (#\w{6}); \}", STYLE)
        names |= {"bad": bad, "good": good, "on-cause": cause}
    return names


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + .05) / (L2 + .05) of relative luminances."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(f * c for f, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_formula_knows_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_and_mark_has_enough_contrast(theme: str) -> None:
    names = colours(theme)
    poor = [
        (words, ground, round(contrast(names[words], names[ground]), 2))
        for pairs, least in ((TEXT, 4.5), (GRAPHICS, 3.0))
        for words, ground in pairs
        if contrast(names[words], names[ground]) < least
    ]
    assert poor == []


@pytest.fixture(scope="module")
def page(example: Example) -> str:
    return render(
        build(example.staging, expected=example.expected, production=example.production,
              gate=example.gate)
    )  # fmt: skip


def test_every_picture_has_words_and_every_section_tables(page: str) -> None:
    pictures = re.findall(r"<svg viewBox[^>]*width=[^>]*>", page)
    assert len(pictures) >= 16  # eight charts, each wide and narrow
    assert all('role="img"' in one and re.search('aria-label="[^"]{15,}"', one) for one in pictures)
    for section in re.findall(r"<section id=.*?</section>", page, re.S):
        assert "<svg viewBox" not in section or "<table" in section


def test_what_scrolls_can_be_reached_and_named_by_keyboard(page: str) -> None:
    scrolls = re.findall(r'<div class="scroll"[^>]*>', page)
    assert scrolls
    assert all('tabindex="0"' in one and re.search('aria-label="[^"]+"', one) for one in scrolls)
    assert '<a class="skip" href="#main">' in page


def test_contents_lead_to_sections_that_are_there(page: str) -> None:
    wanted = set(re.findall(r'href="#([\w-]+)"', page))
    assert wanted <= set(re.findall(r'id="([\w-]+)"', page))
    assert len(wanted) >= 9


def test_headings_go_down_one_level_at_a_time(page: str) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_larger_run_still_makes_a_small_file(example: Example, tmp_path: Path) -> None:
    make_run(
        tmp_path / "run", production_records(200, 3), tokenizer=example.tokenizer,
        capacity_blocks=4000,
    )  # fmt: skip
    page = render(build(tmp_path / "run", production=example.production))
    assert len(page.encode()) < 500_000
