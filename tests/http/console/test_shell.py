"""What all pages share: search, keys, theme, pause, live updates, and what they show during an outage."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from helpers.console import end, expect, log_in, send, shown_state, watch
from helpers.http import HttpProcess
from helpers.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartProxy
    from helpers.runs import RunWorld
    from playwright.sync_api import Browser, Page, Route


def test_agents_and_commands_are_found_by_search(kept_page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("attic-lamp")
    eventually(lambda: running.http.get("/api/agents?find=attic").json["total"] == 1)
    command_id = send(running, "nobody", "install")
    log_in(kept_page, running)

    kept_page.keyboard.press("/")
    search = kept_page.get_by_role("combobox", name="Search")
    expect(search).to_be_focused()
    search.fill("attic")
    expect(kept_page.get_by_role("option", name="attic-lamp")).to_have_attribute("aria-selected", "true")
    search.press("Enter")
    expect(kept_page.get_by_role("heading", name="attic-lamp")).to_be_focused()
    kept_page.get_by_role("button", name="Search").click()
    search.fill(command_id)
    search.press("Enter")

    expect(kept_page).to_have_url(f"{running.url}/#/command/{command_id}")


def test_keyboard_shortcuts_work_except_while_typing(kept_page: Page, running: HttpProcess) -> None:
    log_in(kept_page, running)

    kept_page.keyboard.press("g")
    kept_page.keyboard.press("c")
    expect(kept_page.get_by_role("heading", name="Commands")).to_be_focused()
    kept_page.get_by_label("Agent name").press("?")
    expect(kept_page.get_by_role("dialog")).to_have_count(0)
    kept_page.get_by_role("heading", name="Commands").press("?")
    expect(kept_page.get_by_role("dialog", name="Keyboard")).to_contain_text("Runs")
    kept_page.keyboard.press("Escape")

    expect(kept_page.get_by_role("dialog")).to_have_count(0)


def test_the_keyboard_can_skip_the_navigation(kept_page: Page, running: HttpProcess) -> None:
    log_in(kept_page, running)
    kept_page.reload()
    kept_page.locator("#main h1").wait_for(state="attached")

    kept_page.keyboard.press("Tab")
    expect(kept_page.get_by_role("link", name="Skip to the content")).to_be_focused()
    kept_page.keyboard.press("Enter")

    expect(kept_page.locator("main")).to_be_focused()


def test_the_theme_survives_a_reload(page: Page, running: HttpProcess) -> None:
    page.emulate_media(color_scheme="light")
    log_in(page, running)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(background)
    page.reload()

    assert dark != light
    assert page.evaluate(background) == dark


def test_nothing_is_updated_while_paused(page: Page, running: HttpProcess, world: RunWorld) -> None:
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


def test_rows_do_not_move_under_the_pointer(page: Page, running: HttpProcess) -> None:
    first = send(running, "rows", "order")
    log_in(page, running, to="commands?command_type=order")
    page.locator("tbody tr").hover()

    second = send(running, "rows", "order")
    more = page.get_by_role("button", name="Show 1 new")
    expect(more).to_be_visible()
    expect(page.locator("tbody tr")).to_have_attribute("data-key", first)
    more.click()

    expect(page.locator("tbody tr").first).to_have_attribute("data-key", second)


def test_the_last_data_stays_while_nats_or_server_are_down(
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
        expect(page.locator(".away")).to_contain_text("NATS or this server is unreachable.")
        expect(shown_state(page)).to_have_text("pending")
        expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
        page.keyboard.press("p")
        with page.expect_response(lambda answer: command_id in answer.url and answer.status == 503):
            page.keyboard.press("p")  # resuming reloads the page's data, which fails
        expect(shown_state(page)).to_have_text("pending")
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


def test_server_problems_are_listed_first(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("health")

    def worse(route: Route) -> None:
        """Answer like the server, but with its clock behind and a stream nearly full."""
        found = route.fetch().json()
        found["clock_behind"] = 75.0
        found["streams"][0]["bytes"] = int(0.93 * found["streams"][0]["max_bytes"])
        route.fulfill(json=found)

    log_in(page, running)
    expect(page.get_by_label("NATS server")).to_contain_text("agrees with NATS")
    expect(page.get_by_role("table", name="Stream usage")).to_contain_text("LIGHTLINK_COMMANDS")
    page.route("**/api/server", worse)
    page.reload()

    expect(page.locator(".needs li").first).to_contain_text("LIGHTLINK_COMMANDS is 93 % full")
    expect(page.get_by_label("NATS server")).to_contain_text("this server is 75 s behind NATS")


_SET_HIDDEN = """(hidden) => {
    Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_closes_its_stream_and_catches_up(page: Page, running: HttpProcess) -> None:
    first, second = (send(running, "hidden", "install") for _ in range(2))
    log_in(page, running, to=f"command/{first}")
    expect(shown_state(page)).to_have_text("pending")
    page.clock.install()
    page.clock.pause_at(time.time() + 20)  # or it goes on by itself, and further on a slow machine

    page.evaluate(_SET_HIDDEN, True)
    page.clock.run_for(20_000)
    running.http.post(f"/api/command/{first}/cancel", {"reason": "seen by a tab that was looked at just before"})
    eventually(lambda: page.clock.run_for(20) or shown_state(page).text_content() == "cancelled")
    page.evaluate("(id) => { location.hash = `#/command/${id}`; }", second)
    eventually(lambda: page.clock.run_for(20) or second in (page.locator(".facts").text_content() or ""))
    with page.expect_event("requestfailed", lambda request: "/api/events" in request.url):
        page.clock.run_for(10_000)
    running.http.post(f"/api/command/{second}/cancel", {"reason": "nobody looks"})
    expect(shown_state(page)).to_have_text("pending")

    page.evaluate(_SET_HIDDEN, False)

    expect(shown_state(page)).to_have_text("cancelled")


def test_a_page_is_drawn_five_times_a_second_at_most(page: Page, running: HttpProcess) -> None:
    log_in(page, running, to="commands?command_type=burst")
    expect(page.get_by_role("heading", name="No command matches these filters")).to_be_visible()
    page.evaluate(
        """() => {
            window.heard = window.drawn = 0;
            window.ear = new BroadcastChannel(`lightlink ${location.pathname}`);
            window.ear.onmessage = (event) => { if (event.data[0] === "command") window.heard += 1; };
            const options = { childList: true, subtree: true, characterData: true };
            new MutationObserver(() => { window.drawn += 1; }).observe(document.querySelector("main"), options);
        }"""
    )
    page.clock.install()
    page.clock.pause_at(time.time() + 60)

    for _ in range(20):
        send(running, "burst", "burst")
    # Playwright's wait_for_function evaluates a string, which the content security policy refuses.
    eventually(lambda: page.evaluate("window.heard >= 20"))
    assert page.evaluate("window.drawn") == 0
    page.clock.run_for(199)
    assert page.evaluate("window.drawn") == 0
    page.clock.run_for(1)

    expect(page.locator("tbody tr")).to_have_count(20)
    assert page.evaluate("window.drawn") == 1


def test_times_are_local_with_utc_in_their_title(browser: Browser, running: HttpProcess) -> None:
    command_id = send(running, "clocks", "install")
    with browser.new_context(locale="en-GB", timezone_id="Asia/Kolkata") as context:
        page = context.new_page()
        log_in(page, running, to=f"command/{command_id}")
        sent = datetime.fromisoformat(running.http.get(f"/api/command/{command_id}/history").json["entries"][0]["at"])
        local = sent.astimezone(timezone(timedelta(hours=5, minutes=30)))

        time_of_day = page.locator(".timeline time")
        expect(time_of_day).to_have_text(re.compile(f"{local:%H:%M:%S}$"))
        expect(time_of_day).to_have_attribute("title", f"{sent.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC")
        for place in ("overview", "agents", "commands", "runs", "files", "fleet", "audit"):
            page.goto(f"{running.url}/#/{place}")
            page.locator("#main h1").first.wait_for(state="attached")
            titles = page.locator("main time").evaluate_all("(all) => all.map((each) => each.title)")
            assert all(title.endswith(" UTC") for title in titles), place
            assert not re.search(r"\d{4}-\d\d-\d\dT\d\d", page.locator("main").inner_text()), place


def test_focus_and_scroll_position_survive_updates(page: Page, running: HttpProcess) -> None:
    sent = [send(running, "focus", "keep") for _ in range(40)]
    log_in(page, running, to="commands?command_type=keep")
    page.set_viewport_size({"width": 390, "height": 500})
    expect(page.locator("tbody tr")).to_have_count(40)
    row = page.locator(f"tr[data-key='{sent[20]}']")
    link = row.get_by_role("link", name="keep", exact=True)
    link.focus()
    link.scroll_into_view_if_needed()
    before = page.evaluate("[scrollX, scrollY]")
    assert before[1] > 0

    running.http.post(f"/api/command/{sent[20]}/cancel", {"reason": "its row is drawn anew"})

    expect(row.locator(".state")).to_have_text("cancelled")
    expect(link).to_be_focused()
    assert page.evaluate("[scrollX, scrollY]") == before
    agent = row.get_by_role("link", name="focus")  # each row has an equal link
    agent.focus()
    running.http.post(f"/api/command/{sent[21]}/cancel", {"reason": "as is that of another"})
    expect(page.locator(f"tr[data-key='{sent[21]}'] .state")).to_have_text("cancelled")
    expect(agent).to_be_focused()


def test_a_chart_can_be_read_by_keys_and_in_words(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("charted", types="draw")
    end(running, send(running, "charted", "draw"))
    log_in(page, running)
    page.reload()
    readout = page.locator(".chart output")
    chart = page.get_by_role("img", name=re.compile("Commands sent in the last hour. .* done"))
    expect(readout).to_have_text(re.compile("done"))
    total = readout.text_content()

    chart.focus()
    chart.press("ArrowLeft")
    expect(readout).to_have_attribute("title", re.compile("UTC$"))
    expect(readout).to_have_text(re.compile(r"^\d\d:\d\d"))
    chart.blur()

    expect(readout).to_have_text(total or "")


def test_a_box_keeps_its_scroll_position_on_updates(page: Page, running: HttpProcess) -> None:
    body = {"client_id": "boxes", "command_type": "long", "payload": {f"line-{n}": n for n in range(200)}}
    command_id = running.http.post("/api/command", body).json["command_id"]
    log_in(page, running, to=f"command/{command_id}")
    payload = page.get_by_label("Details").get_by_label("JSON")
    payload.evaluate("(box) => { box.scrollTop = 50; }")
    assert payload.evaluate("(box) => box.scrollTop") == 50

    running.http.post(f"/api/command/{command_id}/cancel", {"reason": "it is drawn anew"})

    expect(shown_state(page)).to_have_text("cancelled")
    assert payload.evaluate("(box) => box.scrollTop") == 50
