"""Services, events, state and files in the console, against a real server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from helpers.console import READER, expect, log_in
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Page


@pytest.fixture
def page(kept_page: Page) -> Page:
    return kept_page


@pytest.fixture
def client(world: RunWorld) -> Iterator[lightlink.Client]:
    with lightlink.connect(world.url) as connected:
        yield connected


def test_a_service_method_is_called(page: Page, running: HttpProcess, world: RunWorld, prefix: str) -> None:
    service = lightlink.Service(prefix, world.url)

    @service.rpc
    def half(number: float) -> float:
        """Halve a number."""
        if number < 0:
            raise ValueError("below zero")
        return number / 2

    with service:
        log_in(page, running, to="services")
        page.get_by_role("region", name=prefix).get_by_role("button", name="Call half").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Halve a number.")
        dialog.get_by_label("number").fill("7")
        dialog.get_by_role("button", name="Call").click()
        expect(dialog.locator("pre.json")).to_have_text("3.5")
        dialog.get_by_label("number").fill("-1")
        dialog.get_by_role("button", name="Call").click()

        expect(dialog.get_by_role("alert")).to_contain_text("below zero")
        page.keyboard.press("Escape")
        page.reload()
        cells = page.get_by_role("region", name=prefix).get_by_role("row", name="half").get_by_role("cell")
        figures = [re.compile(each) for each in (r"^2$", r"^[\d.]+ /s$", r"^1$", r"^[\d.]+ ms$", r"^[\d.]+ ms$")]
        expect(cells).to_have_text([re.compile("half"), *figures, "Call"])


def test_dead_letters_are_shown_redelivered_and_discarded(
    page: Page, running: HttpProcess, client: lightlink.Client, prefix: str
) -> None:
    good, handled = set[int](), []
    client.stream(prefix, [f"{prefix}.>"], max_bytes=1_000_000)

    @client.consume(f"{prefix}.>", name="billing")
    def bill(message: Any) -> None:
        if message["id"] not in good:
            raise lightlink.Reject("no such customer")
        handled.append(message["id"])

    for number in (1, 2):
        client.publish_stored(f"{prefix}.new", {"id": number})
    eventually(lambda: len(client.dead_letters(prefix, "billing").list()) == 2)
    log_in(page, running, to="events")
    rows = page.get_by_role("table", name="Dead letters").locator("tbody tr")

    expect(rows).to_have_count(2)
    expect(page.get_by_role("table", name="Streams")).to_contain_text(prefix)
    expect(page.get_by_role("table", name="Consumers")).to_contain_text("billing")
    good.add(1)
    rows.first.locator(".as-link").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("no such customer")
    expect(dialog.locator("pre")).to_contain_text('"id": 1')
    dialog.get_by_role("button", name="Redeliver").click()
    expect(rows).to_have_count(1)
    rows.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()

    expect(page.get_by_text("There are no dead letters.")).to_be_visible()
    eventually(lambda: handled == [1])


def test_live_events_are_shown(page: Page, running: HttpProcess, client: lightlink.Client, prefix: str) -> None:
    log_in(page, running, to="events")
    page.get_by_label("Subject to show").fill(f"{prefix}.>")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_text("0 seen")).to_be_visible()

    page.get_by_role("button", name="Publish an event").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Payload").fill("{")
    dialog.get_by_role("button", name="Publish an event").click()
    expect(dialog.locator(".err:visible").last).to_contain_text("JSON")
    dialog.get_by_label("Subject").fill(f"{prefix}.door")
    dialog.get_by_label("Payload").fill('{"open": "<b>yes</b>"}')
    dialog.get_by_role("button", name="Publish an event").click()
    line = page.locator(".tail li")
    expect(line).to_contain_text('{"open":"<b>yes</b>"}')
    for number in range(250):
        client.publish(f"{prefix}.many", number)
    expect(page.locator(".sec [role=status]")).to_contain_text("passed too fast to show")
    page.get_by_role("button", name="Stop").click()

    assert line.count() <= 200


def test_a_value_is_edited_by_compare_and_set(
    page: Page, running: HttpProcess, client: lightlink.Client, prefix: str
) -> None:
    bucket = client.state(prefix, history=5)
    bucket.set("limits/eu.day", {"most": 1})
    log_in(page, running, to="state")
    page.get_by_role("link", name=prefix).click()
    page.get_by_role("link", name="limits/eu.day").click()
    expect(page.locator("pre.json")).to_contain_text('"most": 1')

    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Value").fill('{"most": 2}')
    page.get_by_role("button", name="Save").click()
    expect(page.locator("pre.json")).to_contain_text('"most": 2')
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".difference del")).to_contain_text('-   "most": 1')
    expect(page.locator(".difference ins")).to_contain_text('+   "most": 2')
    page.get_by_role("button", name="Edit").click()
    bucket.set("limits/eu.day", {"most": 5})
    page.get_by_label("Value").fill('{"most": 9}')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Somebody else has changed this key")).to_be_visible()
    expect(page.get_by_label("Value")).to_have_value('{"most": 9}')
    page.get_by_role("button", name="Show the current value").click()
    expect(page.locator("pre.json")).to_contain_text('"most": 5')
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.get_by_role("heading", name="No key matches")).to_be_visible()
    assert bucket.get("limits/eu.day", None) is None


def test_a_value_that_a_browser_would_change_is_not_written(
    page: Page, running: HttpProcess, client: lightlink.Client, prefix: str
) -> None:
    bucket = client.state(prefix)
    bucket.set("device", {"serials": [2**53 + 1]})
    log_in(page, running, to=f"key/{prefix}/device")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_text("a browser changes integers beyond 2^53")).to_be_visible()
    assert bucket.entry("device").revision == 1
    page.get_by_label("Value").fill(f'{{"serials": [{2**53 - 1}]}}')
    page.get_by_role("button", name="Save").click()
    eventually(lambda: bucket.get("device") == {"serials": [2**53 - 1]})


def test_a_key_is_created(page: Page, running: HttpProcess, client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix)
    bucket.set("taken", 1)
    log_in(page, running, to=f"bucket/{prefix}")

    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key").fill("taken")
    dialog.get_by_label("Value").fill('"hello"')
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_contain_text("it exists already")
    dialog.get_by_label("Key").fill("greeting")
    dialog.get_by_role("button", name="Save").click()

    expect(page.locator("pre.json")).to_have_text('"hello"')
    assert bucket.get("greeting") == "hello"


def test_files_are_uploaded_downloaded_and_deleted(
    page: Page, running: HttpProcess, client: lightlink.Client, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4000
    (tmp_path / "plan <b>.bin").write_bytes(content)
    log_in(page, running, to="files")

    page.get_by_label("File to upload").set_input_files(tmp_path / "plan <b>.bin")
    file = page.get_by_role("link", name="plan <b>.bin")
    expect(file).to_be_visible()
    expect(page.locator("tbody tr")).to_contain_text("1.0 MB")
    expect(page.locator("tbody tr")).to_contain_text("ops")
    with page.expect_download() as started:
        file.click()
    started.value.save_as(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
    page.get_by_role("button", name="Delete plan").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.get_by_role("heading", name="This bucket has no files")).to_be_visible()
    assert client.files() == []


def test_pages_that_a_token_may_not_read_are_not_offered(page: Page, running: HttpProcess) -> None:
    log_in(page, running, READER)
    offered = page.locator(".side [data-nav]").evaluate_all("all => all.map((each) => each.dataset.nav)")

    assert not {"state", "files", "events", "fleet"} & {*offered}
    page.goto(f"{running.url}/#/state")
    expect(page.get_by_role("heading", name="Your token may not do this")).to_be_visible()
