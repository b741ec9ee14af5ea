"""The console in a real browser: Debian's Chromium, against a real server with agents."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from helpers.http import HttpProcess, tokens_file
from helpers.runs import RunWorld
from helpers.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
# .ci/run installs both: there, nothing of this may be left out unseen.
if os.environ.get("CI"):
    import playwright.sync_api as api
else:
    api = pytest.importorskip("playwright.sync_api")
    pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

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
HOSTILE = "<img src=x onerror=\"document.title='hostile'\"><script>document.title='hostile'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a new profile, on which nothing may go wrong."""
    context = browser.new_context(locale="en-GB")
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if _is_wrong(message) else None)
    yield opened
    context.close()
    assert problems == []


def _is_wrong(message: object) -> bool:
    # The browser itself notes each refusal that a test provokes.
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text  # type: ignore[attr-defined]


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[RunWorld]:
    with RunWorld(fresh_server().url) as made:
        yield made


@pytest.fixture
def running(world: RunWorld, tmp_path: Path) -> Iterator[HttpProcess]:
    tokens = tokens_file(
        tmp_path / "tokens.json",
        {"name": "ops", "scope": ["read", "send", "plan", "approve"], "token": OPS},
        {"name": "reader", "scope": ["read"], "token": READER},
    )
    with HttpProcess(world.url, f"--tokens={tokens}", token=OPS) as process:
        yield process


def log_in(page: Page, running: HttpProcess, token: str = OPS, to: str = "overview") -> None:
    page.goto(f"{running.url}/#/{to}")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.locator("main h1").first.wait_for(state="attached")


def send(running: HttpProcess, client_id: str, command_type: str) -> str:
    body = {"client_id": client_id, "command_type": command_type, "payload": {"version": "4"}}
    command_id: str = running.http.post("/api/command", body).json["command_id"]
    return command_id


def end(running: HttpProcess, command_id: str) -> None:
    assert running.http.get(f"/api/command/{command_id}?wait=20").json["command"]["status"] in ("completed", "failed")


def test_one_logs_in_and_out(page: Page, running: HttpProcess) -> None:
    page.goto(running.url)
    page.get_by_label("Token").fill("guessed-0123456789")
    page.get_by_role("button", name="Log in").click()
    api.expect(page.get_by_text("This token is not good here")).to_be_visible()

    log_in(page, running)
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    page.get_by_role("button", name="Log out").click()

    api.expect(page.get_by_label("Token")).to_be_visible()


def test_failed_commands_are_found_understood_and_sent_again(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("greenhouse", "garage")
    world.failing.add(("garage", "install"))
    for client_id in ("greenhouse", "garage"):
        end(running, send(running, client_id, "install"))
    log_in(page, running)

    page.get_by_role("link", name="ValueError: install is broken here").click()
    page.get_by_role("link", name="install", exact=True).click()
    api.expect(page.get_by_role("alert")).to_contain_text("install is broken here")
    world.failing.clear()
    page.get_by_role("button", name="Send again").click()

    api.expect(page.locator(".under .state")).to_have_text("done")
    assert world.of("install").count("garage") == 2


def test_a_command_shows_live_what_becomes_of_it(page: Page, running: HttpProcess, world: RunWorld) -> None:
    command_id = send(running, "greenhouse", "install")
    log_in(page, running, to=f"command/{command_id}")
    state = page.locator(".under .state")
    api.expect(state).to_have_text("pending")

    world.agents("greenhouse")

    api.expect(state).to_have_text("done")
    api.expect(page.locator(".timeline")).to_contain_text("sent")


def test_a_command_is_cancelled_with_a_reason(page: Page, running: HttpProcess) -> None:
    command_id = send(running, "nobody", "install")
    log_in(page, running, to=f"command/{command_id}")

    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    api.expect(dialog.get_by_text("Say why")).to_be_visible()
    dialog.get_by_label("Reason").fill("it rains")
    dialog.get_by_role("button", name="Cancel").click()

    api.expect(page.locator(".under .state")).to_have_text("cancelled")


def test_a_command_is_sent_by_labels(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("greenhouse", "garage", labels={"site": "home"})
    eventually(lambda: running.http.get("/api/agents?label=site%3Dhome").json["total"] == 2)
    log_in(page, running, to="send?labels=site%3Dhome")

    page.get_by_label("Command type").select_option("install")
    page.get_by_role("button", name="Send to 2").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("the new version")
    dialog.get_by_role("button", name="Send to 2").click()

    eventually(lambda: sorted(world.of("install")) == ["garage", "greenhouse"])
    api.expect(page.get_by_role("heading", name="Commands")).to_be_visible()


def test_who_may_only_read_is_offered_nothing_else(page: Page, running: HttpProcess) -> None:
    command_id = send(running, "nobody", "install")
    log_in(page, running, READER, f"command/{command_id}")

    api.expect(page.locator(".under .state")).to_have_text("pending")
    api.expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.goto(f"{running.url}/#/send")
    api.expect(page.get_by_text("Sending needs the scope send")).to_be_visible()


def test_hostile_results_stay_text(page: Page, running: HttpProcess, world: RunWorld) -> None:
    agent = world.agent("greenhouse", labels={"site": "home"})
    agent.register("show", lambda version="": HOSTILE)
    agent.start(timeout=10)
    command_id = send(running, "greenhouse", "show")
    end(running, command_id)
    log_in(page, running, to=f"command/{command_id}")

    api.expect(page.locator("pre.json").first).to_contain_text("onerror")
    assert "hostile" not in page.title()
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_every_page_is_shown_and_fits(page: Page, running: HttpProcess, world: RunWorld, width: int) -> None:
    world.agents("greenhouse", labels={"site": "home"})
    end(running, send(running, "greenhouse", "install"))
    page.set_viewport_size({"width": width, "height": 900})
    log_in(page, running)

    for name in ("Overview", "Agents", "Commands", "Send", "Runs", "Services", "Audit"):
        page.goto(f"{running.url}/#/{name.lower()}")
        api.expect(page).to_have_title(re.compile(f"^{name} "))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_it_is_chinese_for_a_browser_that_is(browser: Browser, running: HttpProcess) -> None:
    with browser.new_context(locale="zh-CN") as context:
        page = context.new_page()
        page.goto(running.url)

        api.expect(page.get_by_role("button", name="登录")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_both_languages_say_the_same_things(page: Page, running: HttpProcess) -> None:
    page.goto(running.url)
    keys = page.evaluate(
        "Promise.all(['en', 'zh'].map((name) => import(`/console/${name}.js`)))"
        ".then((found) => found.map((each) => Object.keys(each.default).sort()))"
    )

    assert keys[0] == keys[1]
