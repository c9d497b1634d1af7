"""Opens Locust's interface in headless Chromium, starts the test, reads the loadkit tab.

Run as a program, so that the browser's event loop meets neither pytest's nor gevent's. Prints one
JSON object: what a person would see, what the browser complained about, whom it talked to.
"""

from __future__ import annotations

import argparse
import json
import os
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READ = """() => {
  const tab = document.getElementById("loadkit-tab");
  const text = (selector, from = tab) => [...from.querySelectorAll(selector)].map((n) => n.textContent);
  const blocks = [...tab.querySelectorAll("svg rect[class^=lk-part-]")];
  return {
    requests: Number(tab.dataset.requests),
    theme: tab.dataset.theme,
    values: Object.fromEntries(
      [...tab.querySelectorAll("[data-value]")].map((n) => [n.dataset.value, n.textContent])),
    causes: Object.fromEntries(
      [...tab.querySelectorAll("[data-cause]")].map((n) => [n.dataset.cause, text("td", n)])),
    outcomes: text(".lk-outcomes tr"),
    warnings: [...tab.querySelectorAll("[data-code]")].map((n) => n.dataset.code),
    pieces: text(".lk-piece"),
    source: text(".lk-card-requests .lk-hint")[0],
    drawn: [...new Set(blocks.map((n) => n.getAttribute("class")))].sort(),
    spoken: tab.querySelector("svg").getAttribute("aria-label"),
    band: tab.querySelectorAll("svg .lk-band").length,
    page_width: document.documentElement.scrollWidth,
  };
}"""


def look(page: Page, options: argparse.Namespace) -> dict[str, object]:
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.goto(options.url)
    if not options.started:
        page.locator('button[type="submit"]').click()
    tab = page.get_by_role("tab", name="loadkit")
    tab.click()
    page.wait_for_function(
        "n => Number(document.getElementById('loadkit-tab')?.dataset.requests) >= n",
        arg=options.requests,
    )
    seen: dict[str, object] = page.evaluate(READ)
    if options.screenshot:
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)  # Locust's tabs are animated
        page.screenshot(path=options.screenshot)
    leave(page)
    return {**seen, "complaints": complaints, "hosts": sorted(hosts)}


def leave(page: Page) -> None:
    """Go to another tab: ours must go away. A click can fall into a redraw of Locust's tab bar and
    be lost, so it is tried again, as a person would; the last try's failure is the test's."""
    for patience_ms in (5_000, 10_000, 20_000):
        page.get_by_role("tab", name="statistics").click()
        try:
            page.locator("#loadkit-tab").wait_for(state="detached", timeout=patience_ms)
            return
        except PlaywrightTimeout:
            continue
    raise AssertionError("the loadkit tab is still there after three clicks on another tab")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=1, help="wait for so many")
    parser.add_argument("--started", action="store_true", help="the test is running already")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--screenshot")
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    options = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=FLAGS)
        context = browser.new_context(
            viewport={"width": options.width, "height": options.height},
            color_scheme="dark" if options.dark else "light",
        )
        context.set_default_timeout(300_000)
        print(json.dumps(look(context.new_page(), options)))
        browser.close()


if __name__ == "__main__":
    main()
