"""Accessibility: axe-core finds no violations, in light and in dark, and pages fit at 200 %."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from helpers.console import end, expect, log_in, send
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Browser, Page

PLAN: dict[str, Any] = {
    "name": "axe",
    "targets": ["axe-1", "axe-2"],
    "waves": [1, "rest"],
    "between": {"by": ["ops"], "expires": "1h"},
    "steps": [{"name": "install", "command": "install", "payload": {"version": "4"}}],
}
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.fixture(scope="module")
def places(running: HttpProcess, world: RunWorld) -> Iterator[list[str]]:
    """The paths of all pages, with data on each."""
    world.agents("axe-1", "axe-2", labels={"site": "home"})
    world.failing.add(("axe-2", "verify"))
    done, failed = send(running, "axe-1", "install"), send(running, "axe-2", "verify")
    for command_id in (done, failed):
        end(running, command_id)
    world.failing.clear()
    running.http.post("/api/stored-plans", {"plan": PLAN})
    run_id = running.http.post("/api/runs", {"plan": PLAN}).json["run"]["run_id"]
    eventually(lambda: running.http.get(f"/api/runs/{run_id}").json["run"]["state"] == "waiting")
    body = {"client_ids": ["axe-1", "axe-2"], "command_type": "info", "payload": {"version": "4"}}
    batch_id = running.http.post("/api/command/multi", body).json["batch_id"]
    with lightlink.connect(world.url) as client:
        client.state("axe", history=3).set("lamp", {"on": True})
        client.stream("AXE", ["axe.>"], max_bytes=1_000_000)
        one = [f"command/{done}", f"command/{failed}", f"run/{run_id}", "agent/axe-1", "key/axe/lamp", "bucket/axe"]
        pages = ["overview", "agents", "commands", "send", "runs", "start"]
        more = ["services", "state", "files", "events", "fleet", "audit"]
        asked = [f"commands?batch_id={batch_id}", "start?by=clock", "send?to=axe-1&type=install"]
        yield [*pages, *more, *one, *asked]


def violations(page: Page) -> list[str]:
    """Return axe-core's violations on the current page."""
    found = page.evaluate("(levels) => axe.run(document, {runOnly: levels})", LEVELS)
    return [f"{each['id']}: {node['html'][:160]}" for each in found["violations"] for node in each["nodes"]]


def dialogs(page: Page) -> dict[str, list[str]]:
    """Return axe-core's violations in the dialog that creates a schedule."""
    page.evaluate("() => { location.hash = '#/start'; }")
    expect(page.locator("main h1")).to_have_text("Start a run")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Schedule", exact=True).click()
    return {"schedule": violations(page)}


def look(page: Page, running: HttpProcess, places: list[str]) -> dict[str, list[str]]:
    """Return axe-core's violations by page, for pages that have any."""
    page.goto(running.url)
    expect(page.get_by_label("Token")).to_be_visible()
    axe = (files("axe_playwright_python") / "axe.min.js").read_text()
    # Evaluated, as the page's content security policy refuses scripts from elsewhere.
    page.evaluate(axe)
    found = {"log-in": violations(page)}
    page.goto("about:blank")
    log_in(page, running)
    page.evaluate(axe)
    for place in places:
        before = page.title()
        page.evaluate("(place) => { location.hash = `#/${place}`; }", place)
        if place != "overview":
            eventually(lambda before=before: page.title() != before)
        found[place] = violations(page)
    page.keyboard.press("?")
    found["keys"] = violations(page)
    page.keyboard.press("Escape")
    found |= dialogs(page)
    return {place: wrong for place, wrong in found.items() if wrong}


def test_axe_finds_nothing_on_the_fullest_pages(page: Page, running: HttpProcess, places: list[str]) -> None:
    run = next(place for place in places if place.startswith("run/"))

    assert look(page, running, ["overview", "commands", run]) == {}


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(page: Page, running: HttpProcess, places: list[str], scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)

    assert look(page, running, places) == {}


@pytest.mark.browser
@pytest.mark.slow
def test_pages_fit_at_200_percent(browser: Browser, running: HttpProcess, places: list[str]) -> None:
    # The viewport of a browser at 200 % in a window of 1280 x 800.
    with browser.new_context(viewport={"width": 640, "height": 400}, device_scale_factor=2, locale="en-GB") as context:
        page = context.new_page()
        log_in(page, running)
        for place in places:
            page.goto(f"{running.url}/#/{place}")
            expect(page.locator("#main h1")).to_be_attached()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
