"""The console in a real browser: its pages, and what nearly every test of them does."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import make_server

# .ci/run installs both: there, nothing of this may be left out unseen.
if os.environ.get("CI"):
    import playwright.sync_api as api
else:
    api = pytest.importorskip("playwright.sync_api")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import WSGIApplication
    from playwright.sync_api import ConsoleMessage, Locator, Page

    from helpers.http import HttpProcess
    from lightlink.http.app import HttpApp

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
OPS, READER = "ops-0123456789abcdef", "reader-0123456789abcdef"
ENTRIES = (
    {"name": "ops", "scope": ["read", "send", "plan", "approve", "fleet", "call", "data", "edit"], "token": OPS},
    {"name": "reader", "scope": ["read"], "token": READER},
)
expect = api.expect
# A busy machine takes longer than the 5 seconds that Playwright allows.
expect.set_options(timeout=30_000)
# To a page of the console from wherever a test has left it: a dialog that is open, updates that pause, the same page.
_GO = """(to) => {
    document.querySelectorAll("dialog[open]").forEach((each) => each.close());
    document.querySelector("#pause[aria-pressed=true]")?.click();
    document.querySelector("main").replaceChildren();
    const before = location.hash;
    location.hash = `#/${to}`;
    if (location.hash === before) window.dispatchEvent(new HashChangeEvent("hashchange"));
}"""
_logged_in: weakref.WeakKeyDictionary[Page, tuple[str, str]] = weakref.WeakKeyDictionary()


def watch(page: Page) -> list[str]:
    """Return a list that fills with what goes wrong in a page: errors, reports of its policy."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if _is_wrong(message) else None)
    return problems


def _is_wrong(message: ConsoleMessage) -> bool:
    # The browser itself notes each refusal that a test provokes, and each outage.
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def log_in(page: Page, running: HttpProcess, token: str = OPS, to: str = "overview") -> None:
    """Open a page of the console as somebody who has logged in, without the form, which takes longer.

    Where somebody has done so in this page before, the console is not loaded again.
    """
    if _logged_in.get(page) == (running.url, token) and page.url.startswith(running.url):
        page.evaluate(_GO, to)
        page.locator("#main h1").first.wait_for(state="attached")
        return
    page.goto("about:blank")
    _logged_in[page] = (running.url, token)
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert page.request.post(f"{running.url}/console/session", data={"token": token}, headers=headers).ok
    page.goto(f"{running.url}/#/{to}")
    page.locator("#main h1").first.wait_for(state="attached")


def send(running: HttpProcess, client_id: str, command_type: str) -> str:
    """Send a command past the console, and return its id."""
    body = {"client_id": client_id, "command_type": command_type, "payload": {"version": "4"}}
    command_id: str = running.http.post("/api/command", body).json["command_id"]
    return command_id


def end(running: HttpProcess, command_id: str) -> None:
    """Wait for a command's end."""
    assert running.http.get(f"/api/command/{command_id}?wait=20").json["command"]["status"] in ("completed", "failed")


def shown_state(page: Page) -> Locator:
    """Return where a page says how its object stands."""
    return page.locator(".under .state").first


def answer_for(page: Page, reason: str) -> None:
    """Give a reason in the dialog that is open, and confirm."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    dialog.locator(".dialog-foot .btn").last.click()
    expect(dialog).to_have_count(0)


@contextlib.contextmanager
def serving(carrier: WSGIApplication, app: HttpApp) -> Iterator[int]:
    """Serve what carries an app of LightLink from this process; gives the port."""
    server = make_server("127.0.0.1", 0, carrier, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        app.stop()
        server.shutdown()
        thread.join(10)
        server.server_close()
