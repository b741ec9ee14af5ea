"""The console in a real browser: log-in, both languages, widths, and what hostile agents send."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

from helpers.console import OPS, READER, end, expect, log_in, send, shown_state

if TYPE_CHECKING:
    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror=\"document.title='hostile'\"><script>document.title='hostile'</script>"


def test_users_log_in_and_out(page: Page, running: HttpProcess) -> None:
    page.goto(running.url)
    page.get_by_label("Token").fill("guessed-0123456789")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("Invalid token")).to_be_visible()

    page.get_by_label("Token").fill(OPS)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_title("Overview · LightLink")
    assert page.evaluate("document.cookie") == ""
    assert OPS not in page.evaluate("JSON.stringify([localStorage, sessionStorage])")
    page.get_by_role("button", name="Log out").click()

    expect(page.get_by_label("Token")).to_be_visible()


def test_without_a_session_the_log_in_is_shown(page: Page, running: HttpProcess) -> None:
    log_in(page, running)
    page.context.clear_cookies()

    page.goto(f"{running.url}/#/commands")

    expect(page.get_by_label("Token")).to_be_visible()


def test_a_token_with_read_is_offered_no_actions(page: Page, running: HttpProcess) -> None:
    command_id = send(running, "nobody", "install")
    log_in(page, running, READER, f"command/{command_id}")

    expect(shown_state(page)).to_have_text("pending")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.goto(f"{running.url}/#/send")
    expect(page.get_by_text("Sending needs the scope send")).to_be_visible()


def test_hostile_results_stay_text(kept_page: Page, running: HttpProcess, world: RunWorld) -> None:
    agent = world.agent("hostile", labels={"site": HOSTILE[:60]})
    agent.register("show", lambda version="": HOSTILE)
    agent.start(timeout=10)
    command_id = send(running, "hostile", "show")
    end(running, command_id)
    log_in(kept_page, running, to=f"command/{command_id}")

    expect(kept_page.locator("pre.json").first).to_contain_text("onerror")
    kept_page.goto(f"{running.url}/#/agents?find=hostile")
    expect(kept_page.locator(".chip")).to_contain_text("onerror")
    assert "hostile" not in kept_page.title()
    assert kept_page.locator("main img, main script").count() == 0


def test_every_page_is_shown_and_fits(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("wide", labels={"site": "home"})
    end(running, send(running, "wide", "install"))
    log_in(page, running)
    names = [link.get_attribute("data-nav") or "" for link in page.locator(".side nav a").all()]
    assert len(names) == 11

    for name in names:
        page.evaluate("(name) => { location.hash = `#/${name}`; }", name)
        expect(page).to_have_title(f"{name.capitalize()} · LightLink")
        for width in (1440, 1024, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)


def test_a_chinese_browser_gets_chinese_texts(browser: Browser, running: HttpProcess) -> None:
    with browser.new_context(locale="zh-CN") as context:
        page = context.new_page()
        page.goto(running.url)

        expect(page.get_by_role("button", name="登录")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_both_languages_have_the_same_keys(kept_page: Page, running: HttpProcess) -> None:
    kept_page.goto(running.url)
    keys = kept_page.evaluate(
        "Promise.all(['en', 'zh'].map((name) => import(`/console/${name}.js`)))"
        ".then((found) => found.map((each) => Object.keys(each.default).sort()))"
    )

    assert keys[0] == keys[1]


def test_the_page_asks_to_log_in_again_after_eight_hours(page: Page, running: HttpProcess) -> None:
    """It then shows the page that was asked for. The cookie is one that was signed eight hours ago."""
    expiry = int(time.time()) - 1
    signature = hmac.new(hashlib.sha256(OPS.encode()).digest(), f"ops|{expiry}".encode(), hashlib.sha256).hexdigest()
    log_in(page, running)
    (cookie,) = page.context.cookies()
    assert 7.9 * 3600 < cookie["expires"] - time.time() <= 8 * 3600
    aged = {"name": cookie["name"], "value": f"ops.{expiry}.{signature}", "url": running.url}
    page.context.clear_cookies()
    page.context.add_cookies([aged])  # type: ignore[list-item]

    page.keyboard.press("g")
    page.keyboard.press("c")
    page.get_by_label("Token").fill(OPS)
    page.get_by_role("button", name="Log in").click()

    expect(page).to_have_title("Commands · LightLink")
