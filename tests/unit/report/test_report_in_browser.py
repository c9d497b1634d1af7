"""The report in Chromium: nothing runs, nothing is fetched, it fits a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_builders import Example, hostile_run

from loadkit.report import write_report

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


def test_a_hostile_report_runs_no_script_and_makes_no_request(
    example: Example, tmp_path: Path, browser: Any
) -> None:
    gate = hostile_run(tmp_path / "run", example.tokenizer)
    write_report(tmp_path / "report.html", staging=tmp_path / "run", gate=gate)
    page, events = browser.new_page(), []
    page.on("request", lambda request: events.append(request.url))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.on("console", lambda message: events.append(message.text))
    address = (tmp_path / "report.html").as_uri()
    page.goto(address)
    page.close()
    assert events == [address]


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
