"""The console below a URL prefix of another site."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest
from helpers.console import answer_for, expect, serving, shown_state
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import lightlink
from lightlink.http import create_app
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.runs import RunWorld
    from playwright.sync_api import Page


@pytest.fixture
def site(world: RunWorld) -> Iterator[int]:
    """The port of a site that has the console below a prefix, and nothing else."""
    with lightlink.connect(world.url) as client, Orchestrator(client, sweep_interval=None) as manager:
        app = create_app(manager)
        carrier = DispatcherMiddleware(NotFound(), {"/ops/console": app})
        with serving(carrier, app) as port:
            yield port


def test_the_console_works_below_a_prefix(page: Page, site: int) -> None:
    url = f"http://127.0.0.1:{site}/ops/console"
    body = json.dumps({"client_id": "nobody", "command_type": "prefixed"}).encode()
    request = urllib.request.Request(f"{url}/api/command", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["success"]

    page.goto(url)
    expect(page).to_have_url(f"{url}/")
    page.get_by_role("link", name="Commands", exact=True).click()
    page.get_by_role("link", name="prefixed", exact=True).click()
    expect(shown_state(page)).to_have_text("pending")
    page.get_by_role("button", name="Cancel").click()
    answer_for(page, "tried")

    # The update comes from the event stream, which is below the prefix too.
    expect(shown_state(page)).to_have_text("cancelled")
