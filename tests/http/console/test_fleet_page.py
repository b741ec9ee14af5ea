"""The fleet in the console: machines are accepted by fingerprint, rejected, and revoked."""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING

import pytest
from helpers.console import answer_for, expect, log_in, serving
from helpers.fleet import FleetWorld
from helpers.waiting import eventually

from lightlink.errors import FleetRefused
from lightlink.fleet import enroll
from lightlink.http import create_app
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.http import HttpProcess
    from playwright.sync_api import Page


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetWorld]:
    with contextlib.ExitStack() as stack:
        world = FleetWorld(tmp_path, stack)
        world.responder()
        yield world


@pytest.fixture
def console(fleet: FleetWorld) -> Iterator[str]:
    """The address of a console whose server is an admin of the fleet."""
    _ = fleet.manager  # creates the streams
    with Orchestrator(fleet.link("ops"), sweep_interval=None) as manager:
        app = create_app(manager)
        with serving(app, app) as port:
            yield f"http://127.0.0.1:{port}"


def make_token(page: Page, name: str) -> str:
    """Create a token in the console, and return what it shows once."""
    page.get_by_role("button", name="Create a token").click()
    dialog = page.get_by_role("dialog", name="Create a token")
    dialog.get_by_label("Name").fill(f"{name} ?")
    dialog.get_by_label("Hours").fill("800")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_text("Use letters, digits, _ and -.")).to_be_visible()
    expect(dialog.get_by_text("Enter hours above 0, at most 720.")).to_be_visible()
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Hours").fill("2")
    dialog.get_by_label("Labels").fill("site=berlin, kind=pump")
    dialog.get_by_label("Requires approval").check()
    dialog.get_by_role("button", name="Create").click()
    shown = page.get_by_role("dialog", name=f"Token for {name}")
    token = shown.locator(".token").inner_text()
    shown.get_by_role("button", name="Close").click()
    row = page.get_by_role("table", name="Unused tokens").locator("tr", has_text=name)
    expect(row).to_contain_text("needs approval")
    expect(row).to_contain_text("site=berlin")
    return token


def test_machines_are_accepted_rejected_and_revoked(
    page: Page, console: str, fleet: FleetWorld, tmp_path: Path
) -> None:
    admin, told = fleet.admin(), list[str]()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        page.goto(f"{console}/#/fleet")
        tokens = {"good-1": make_token(page, "good-1"), "odd-1": admin.token("odd-1", approve=True)}
        enrolling = {
            name: pool.submit(enroll, token, tmp_path / name, timeout=60, on_pending=told.append)
            for name, token in tokens.items()
        }
        eventually(lambda: len(told) == 2)
        page.reload()
        expect(page.get_by_text("There are no unused tokens.")).to_be_visible()
        waiting = page.get_by_role("table", name="Enrolment requests")
        expect(waiting.locator("tbody tr")).to_have_count(2)

        page.get_by_role("button", name="Compare good-1").click()
        dialog = page.get_by_role("dialog", name="Accept good-1")
        assert dialog.locator(".finger").inner_text() in told
        dialog.get_by_role("button", name="They are the same: accept").click()
        assert enrolling["good-1"].result(30).name == "good-1"
        page.get_by_role("button", name="Reject odd-1").click()
        page.get_by_role("dialog").get_by_role("button", name="Reject").click()
        with pytest.raises(FleetRefused):
            enrolling["odd-1"].result(30)

    expect(page.get_by_text("There are no enrolment requests.")).to_be_visible()
    page.get_by_role("button", name="Revoke good-1").click()
    answer_for(page, "stolen")
    row = page.get_by_role("table", name="Members").locator("tr", has_text="good-1")
    expect(row).to_contain_text("revoked")
    expect(row).to_contain_text("stolen")


def test_the_page_says_when_there_is_no_fleet(page: Page, running: HttpProcess) -> None:
    log_in(page, running, to="fleet")

    expect(page.get_by_role("heading", name="There is no fleet here")).to_be_visible()
    # A missing responder does not mean that NATS is unreachable.
    answered = "performance.getEntriesByName(`${location.origin}/health`).some((each) => each.responseEnd)"
    eventually(lambda: page.evaluate(answered))
    expect(page.locator(".away")).to_be_hidden()
