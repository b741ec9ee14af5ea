"""The console with 10,000 agents and 100,000 commands in the store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from helpers.console import expect, log_in
from helpers.waiting import eventually

from lightlink.commands import model
from lightlink.commands.model import RequestRecord
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Page

    from lightlink.commands import CommandManager

AGENTS, COMMANDS, BLOCK = 10_000, 100_000, 2000


def fill(world: RunWorld) -> None:
    manager: CommandManager = world.manager(sweep_interval=None, timeout=30.0)
    names = [f"sensor-{number:05}" for number in range(AGENTS)]
    for name in names:
        manager.assign_labels(name, {"site": f"site-{int(name[-5:]) % 40}"})
    for start in range(0, COMMANDS, BLOCK):
        block = [
            RequestRecord(
                command_id=new_id(),
                client_id=names[number % AGENTS],
                command_type="measure",
                created_at=model.now(),
                timeout=7200.0,
            )
            for number in range(start, start + BLOCK)
        ]
        stored: list[Exception | None] = []
        manager.store.put_requests(block, lambda _, error, stored=stored: stored.append(error))  # type: ignore[misc]
        eventually(lambda stored=stored: len(stored) == BLOCK, timeout=60)
        assert not any(stored)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pages_of_a_large_fleet_hold_50_rows_at_most(
    page: Page, own_running: HttpProcess, own_world: RunWorld, record_property: Callable[[str, object], None]
) -> None:
    fill(own_world)
    log_in(page, own_running)
    expect(page.locator(".kpis")).to_be_visible()
    ways = {
        "overview": ".kpis",
        "agents": "tbody tr >> nth=49",
        "agents?label=site%3Dsite-7": "tbody tr >> nth=49",
        "agents?skip=9950": "tbody tr >> nth=49",
        "commands": "tbody tr >> nth=49",
        "commands?client_id=sensor-00042": "tbody tr >> nth=9",
        "commands?status=pending&last=86400": "tbody tr >> nth=49",
        "send?labels=site%3Dsite-7": "text=Send to 250",
    }
    took = {}
    for place, shown in ways.items():
        page.goto("about:blank")
        began = time.monotonic()
        page.goto(f"{own_running.url}/#/{place}")
        page.locator(shown).first.wait_for(timeout=60_000)
        took[place] = time.monotonic() - began
        # A page holds 50 rows, however many there are.
        assert page.locator("tbody tr").count() <= 50
    record_property("seconds to a page", "\n".join(f"{place}: {seconds:.2f} s" for place, seconds in took.items()))
