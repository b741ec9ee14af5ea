"""The console below a prefix of somebody's own site."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

from helpers.console import answer_for, expect, shown_state

if TYPE_CHECKING:
    from conftest import StartPython
    from helpers.runs import RunWorld
    from playwright.sync_api import Page

SITE = """
    import sys
    from waitress.server import create_server
    from werkzeug.exceptions import NotFound
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    import lightlink
    from lightlink.http import create_app
    from lightlink.runs import Orchestrator

    with lightlink.connect(sys.argv[1]) as client, Orchestrator(client) as manager:
        site = DispatcherMiddleware(NotFound(), {"/ops/console": create_app(manager)})
        server = create_server(site, host="127.0.0.1", port=0)
        print("port", server.effective_port, flush=True)
        server.run()
"""


def test_it_works_below_a_prefix(page: Page, world: RunWorld, python: StartPython) -> None:
    port = python(SITE, world.url).wait_line("port").split()[-1]
    url = f"http://127.0.0.1:{port}/ops/console"
    body = json.dumps({"client_id": "nobody", "command_type": "prefixed"}).encode()
    request = urllib.request.Request(f"{url}/api/command", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["success"]

    page.goto(url)
    expect(page).to_have_url(f"{url}/")
    page.get_by_role("link", name="Commands").click()
    page.get_by_role("link", name="prefixed").click()
    expect(shown_state(page)).to_have_text("pending")
    page.get_by_role("button", name="Cancel").click()
    answer_for(page, "tried")

    # Told by the stream, which is below the prefix too.
    expect(shown_state(page)).to_have_text("cancelled")
