"""Pictures of the console for the documentation: ``make pictures`` writes them to docs/images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.console import end, expect, log_in, send
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Page

PLAN: dict[str, Any] = {
    "name": "firmware 4.2",
    "targets": {"labels": {"kind": "sensor"}},
    "waves": [1, 3, "rest"],
    "between": {"by": ["ops"], "expires": "6h"},
    "steps": [
        {"name": "install", "command": "install", "payload": {"version": "4.2"}},
        {"name": "verify", "command": "verify"},
    ],
}
SITES = ("berlin", "turin", "lyon")


def populate(running: HttpProcess, world: RunWorld) -> str:
    """Give the console something to show, and return the id of a run that waits."""
    for place, site in enumerate(SITES):
        names = [f"{site}-{number:02}" for number in range(1, 5 - place)]
        world.agents(*names, labels={"site": site, "kind": "sensor"})
    world.failing |= {("berlin-03", "verify"), ("turin-02", "verify"), ("lyon-01", "info")}
    for name in ("berlin-01", "berlin-02", "berlin-03", "turin-01", "turin-02", "lyon-01"):
        for kind in ("info", "install", "verify"):
            end(running, send(running, name, kind))
    world.failing.clear()
    send(running, "lyon-04", "install")
    run_id: str = running.http.post("/api/runs", {"plan": PLAN, "reason": "CHG-1234"}).json["run"]["run_id"]
    eventually(lambda: running.http.get(f"/api/runs/{run_id}").json["run"]["state"] == "waiting")
    return run_id


@pytest.mark.browser
@pytest.mark.slow
def test_pictures_for_the_documentation(
    page: Page, own_running: HttpProcess, own_world: RunWorld, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("PICTURES") or tmp_path)
    run_id = populate(own_running, own_world)
    with lightlink.connect(own_world.url) as client:
        client.stream("ORDERS", ["orders.>"], max_bytes=10_000_000)

        @client.consume("orders.>", name="billing")
        def bill(message: Any) -> None:
            if message["customer"] == "?":
                raise lightlink.Reject("no such customer")

        for customer in ("ada", "?", "grace", "?"):
            client.publish_stored("orders.new", {"customer": customer, "total": 12.5})
        eventually(lambda: len(client.dead_letters("ORDERS", "billing").list()) == 2)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        log_in(page, own_running)
        shown = {
            "overview": ("Overview", ".needs"),
            "commands": ("Commands", "tbody tr"),
            f"run/{run_id}": (PLAN["name"], ".gate"),
            "events": ("Events", ".as-link"),
        }
        for place, (title, what) in shown.items():
            page.goto(f"{own_running.url}/#/{place}")
            # The previous page stays, with its rows, until this one is loaded.
            expect(page).to_have_title(f"{title} · LightLink")
            expect(page.locator(what).first).to_be_visible()
            page.screenshot(path=folder / f"console-{place.partition('/')[0]}.png")

    # Each shows something: an empty page compresses to next to nothing.
    sizes = {file.name: file.stat().st_size for file in folder.glob("console-*.png")}
    assert len(sizes) == 4
    assert min(sizes.values()) > 20_000, sizes
