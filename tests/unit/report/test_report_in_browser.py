"""The report in Chromium: nothing runs, nothing is fetched, it fits a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from report_builders import HOSTILE, Example, hostile_run, production_records

from loadkit.gate import decide
from loadkit.gate.junit import to_junit
from loadkit.gate.markdown import to_markdown
from loadkit.report import render_markdown, write_report, write_whole

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def attacks(example: Example, at: Path) -> list[Path]:
    """Every file of ours, made of a run and prompts that are nothing but attacks."""
    loud = [{"role": "system", "content": HOSTILE + " word1" * 40}]
    records = [
        msgspec.structs.replace(record, messages=[*loud, *record.messages])
        for record in production_records(12, 3)
    ]
    gate = hostile_run(at / "run", example.tokenizer, records)
    made = write_report(at / "report.html", staging=at / "run", gate=gate, show_text=True)
    write_whole(at / "report.md", render_markdown(made))
    late = {"code": "invalid_timing", "message": HOSTILE}
    run = json.loads((at / "run" / "run.json").read_text()) | {"status": "invalid"}
    verdict = decide(run | {"reasons": [late]}, example.expected)
    write_whole(at / "junit.xml", to_junit(verdict, HOSTILE))
    write_whole(at / "verdict.md", to_markdown(verdict, HOSTILE))
    return [at / name for name in ("report.html", "report.md", "junit.xml", "verdict.md")]


def test_no_hostile_text_runs_a_script_or_makes_a_request(
    example: Example, tmp_path: Path, browser: Any
) -> None:
    for path in attacks(example, tmp_path):
        assert "alert(1)" in path.read_text().replace("\\", "")
        page, events = browser.new_page(), list[str]()
        page.on("request", lambda request, events=events: events.append(request.url))
        page.on("dialog", lambda one, events=events: (events.append("dialog"), one.dismiss()))
        page.on("console", lambda message, events=events: events.append(message.text))
        page.goto(path.as_uri())
        page.close()
        assert events == [path.as_uri()]


def test_everything_that_acts_is_reached_by_the_tab_key(
    example: Example, tmp_path: Path, browser: Any
) -> None:
    write_report(tmp_path / "report.html", staging=example.staging, gate=example.gate)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    acting = page.locator("a, summary, :not(details) > [tabindex='0']")
    wanted = sum(
        one.is_visible() or "skip" in str(one.get_attribute("class")) for one in acting.all()
    )
    reached = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)")
        )
    page.close()
    assert len(reached) == wanted > 12


def test_the_policy_stops_a_script_that_got_in(
    example: Example, tmp_path: Path, browser: Any
) -> None:
    write_report(tmp_path / "report.html", staging=example.staging)
    text = (tmp_path / "report.html").read_text()
    injected = text.replace("<main>", "<main><script>document.title = 'ran'</script>")
    (tmp_path / "injected.html").write_text(injected)
    page = browser.new_page()
    page.goto((tmp_path / "injected.html").as_uri())
    title = page.title()
    page.close()
    assert title.startswith("Staging shows")


@pytest.mark.parametrize(
    ("width", "shown", "hidden"), [(390, "narrow", "wide"), (1100, "wide", "narrow")]
)
def test_the_page_fits_its_width_with_charts_of_its_size(
    example: Example, tmp_path: Path, browser: Any, width: int, shown: str, hidden: str
) -> None:
    write_report(
        tmp_path / "report.html",
        staging=example.staging,
        production=example.production,
        expected=example.expected,
        gate=example.gate,
    )
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    cut = page.evaluate(
        "[...document.querySelectorAll(':not(details) > .scroll')].filter(e => e.offsetWidth"
        " && e.scrollWidth > e.offsetWidth).length"
    )
    visible = [page.locator(f".{name} svg").first.is_visible() for name in (shown, hidden)]
    page.close()
    assert overflow <= 0
    assert cut == 0
    assert visible == [True, False]
