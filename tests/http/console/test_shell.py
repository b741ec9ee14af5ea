"""What every page of the console has: search, keys, theme, pause, and what shows when NATS or the server is away."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from helpers.console import expect, log_in, send, shown_state, watch
from helpers.http import HttpProcess
from helpers.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartProxy
    from helpers.runs import RunWorld
    from playwright.sync_api import Page, Route


def test_agents_and_commands_are_found_by_search(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("attic-lamp")
    eventually(lambda: running.http.get("/api/agents?find=attic").json["total"] == 1)
    command_id = send(running, "nobody", "install")
    log_in(page, running)

    page.keyboard.press("/")
    search = page.get_by_role("combobox", name="Search")
    expect(search).to_be_focused()
    search.fill("attic")
    expect(page.get_by_role("option", name="attic-lamp")).to_have_attribute("aria-selected", "true")
    search.press("Enter")
    expect(page.get_by_role("heading", name="attic-lamp")).to_be_focused()
    page.get_by_role("button", name="Search").click()
    search.fill(command_id)
    search.press("Enter")

    expect(page).to_have_url(f"{running.url}/#/command/{command_id}")


def test_keys_lead_to_pages_but_not_while_one_types(page: Page, running: HttpProcess) -> None:
    log_in(page, running)

    page.keyboard.press("g")
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name="Commands")).to_be_focused()
    page.get_by_label("Name of an agent").press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("heading", name="Commands").press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("Runs")
    page.keyboard.press("Escape")

    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_keyboard_alone_gets_past_the_navigation(page: Page, running: HttpProcess) -> None:
    log_in(page, running)
    page.reload()
    page.locator("#main h1").wait_for(state="attached")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator("main")).to_be_focused()


def test_the_theme_is_kept(page: Page, running: HttpProcess) -> None:
    page.emulate_media(color_scheme="light")
    log_in(page, running)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(background)
    page.reload()

    assert dark != light
    assert page.evaluate(background) == dark


def test_nothing_moves_while_paused(page: Page, running: HttpProcess, world: RunWorld) -> None:
    command_id = send(running, "paused", "install")
    log_in(page, running, to=f"command/{command_id}")
    expect(shown_state(page)).to_have_text("pending")
    page.keyboard.press("p")
    other = page.context.new_page()
    other.goto(page.url)
    expect(shown_state(other)).to_have_text("pending")

    world.agents("paused")
    expect(shown_state(other)).to_have_text("done")
    expect(shown_state(page)).to_have_text("pending")
    page.get_by_role("button", name="Paused").click()

    expect(shown_state(page)).to_have_text("done")


def test_rows_stay_where_they_are_under_a_pointer(page: Page, running: HttpProcess) -> None:
    first = send(running, "rows", "order")
    log_in(page, running, to="commands?command_type=order")
    page.locator("tbody tr").hover()

    second = send(running, "rows", "order")
    more = page.get_by_role("button", name="Show 1 new")
    expect(more).to_be_visible()
    expect(page.locator("tbody tr")).to_have_attribute("data-key", first)
    more.click()

    expect(page.locator("tbody tr").first).to_have_attribute("data-key", second)


def test_the_last_data_stays_while_nats_or_the_server_is_away(
    page: Page, own_world: RunWorld, proxy: StartProxy, tmp_path: Path
) -> None:
    way = proxy(own_world.url)
    with HttpProcess(way.url) as running:
        session = running.http.get("/console/session").json
        assert session["log_in"] is False  # without tokens nobody logs in
        assert "send" in session["scope"]
        command_id = send(running, "nobody", "install")
        page.goto(f"{running.url}/#/command/{command_id}")
        expect(shown_state(page)).to_have_text("pending")

        way.refuse()
        way.cut()
        expect(page.locator(".away")).to_contain_text("NATS or this server is away.")
        expect(shown_state(page)).to_have_text("pending")
        expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
        own_world.agents("nobody")
        way.accept()
        expect(page.locator(".away")).to_be_hidden()
        expect(shown_state(page)).to_have_text("done")

        command_id = send(running, "later", "install")
        page.goto(f"{running.url}/#/command/{command_id}")
        expect(shown_state(page)).to_have_text("pending")
    expect(page.locator(".away")).to_contain_text("the server does not answer")
    expect(shown_state(page)).to_have_text("pending")
    own_world.agents("later")
    with HttpProcess(own_world.url, f"--listen=127.0.0.1:{urlsplit(running.url).port}"):
        expect(page.locator(".away")).to_be_hidden()
        expect(shown_state(page)).to_have_text("done")


def test_tabs_share_one_stream_and_one_takes_over(page: Page, running: HttpProcess) -> None:
    streams: list[str] = []
    page.context.on("request", lambda request: streams.append(request.url) if "/api/events" in request.url else None)
    first, second = (send(running, "tabs", "install") for _ in range(2))
    log_in(page, running, to=f"command/{first}")
    other = page.context.new_page()
    problems = watch(other)
    other.goto(f"{running.url}/#/command/{second}")
    expect(shown_state(other)).to_have_text("pending")

    running.http.post(f"/api/command/{second}/cancel", {"reason": "told by the first"})
    expect(shown_state(other)).to_have_text("cancelled")
    assert len(streams) == 1
    third = send(running, "tabs", "install")
    other.goto(f"{running.url}/#/command/{third}")
    expect(shown_state(other)).to_have_text("pending")
    page.goto("about:blank")
    running.http.post(f"/api/command/{third}/cancel", {"reason": "told by the second"})

    expect(shown_state(other)).to_have_text("cancelled")
    assert len(streams) == 2
    assert problems == []


def test_what_is_wrong_with_the_server_comes_first(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("health")

    def worse(route: Route) -> None:
        """Answer as the server does, but when its clock is apart and a stream nearly full."""
        found = route.fetch().json()
        found["clock_behind"] = 75.0
        found["streams"][0]["bytes"] = int(0.93 * found["streams"][0]["max_bytes"])
        route.fulfill(json=found)

    log_in(page, running)
    expect(page.get_by_label("NATS server")).to_contain_text("agrees with NATS")
    expect(page.get_by_role("table", name="How full the streams are")).to_contain_text("LIGHTLINK_COMMANDS")
    page.route("**/api/server", worse)
    page.reload()

    expect(page.locator(".needs li").first).to_contain_text("LIGHTLINK_COMMANDS is 93 % full")
    expect(page.get_by_label("NATS server")).to_contain_text("this server is 75 s behind NATS")
