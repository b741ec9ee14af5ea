"""Commands in the console: found, followed, cancelled, undone, sent again."""

from __future__ import annotations

import csv
import re
import threading
from typing import TYPE_CHECKING

import pytest
from helpers.console import answer_for, end, expect, log_in, send, shown_state
from helpers.waiting import eventually

from lightlink.commands import CommandContext, Undoable

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Page, Route


@pytest.fixture
def page(kept_page: Page) -> Page:
    return kept_page


def test_failed_commands_are_found_and_sent_again(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("found-1", "found-2", types="repair")
    world.failing.add(("found-2", "repair"))
    for client_id in ("found-1", "found-2"):
        end(running, send(running, client_id, "repair"))
    log_in(page, running)

    page.get_by_role("link", name="ValueError: repair is broken here").click()
    page.get_by_role("link", name="repair", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("repair is broken here")
    world.failing.clear()
    page.get_by_role("button", name="Send again").click()

    expect(shown_state(page)).to_have_text("done")
    assert world.of("repair").count("found-2") == 2


def test_a_command_page_updates_live(page: Page, running: HttpProcess, world: RunWorld) -> None:
    command_id = send(running, "late", "install")
    log_in(page, running, to=f"command/{command_id}")
    expect(shown_state(page)).to_have_text("pending")

    world.agents("late")

    expect(shown_state(page)).to_have_text("done")
    expect(page.locator(".timeline")).to_contain_text("sent")


def test_a_command_that_ends_while_its_page_loads_is_shown_ended(
    page: Page, running: HttpProcess, world: RunWorld
) -> None:
    log_in(page, running)
    command_id = send(running, "gap", "install")

    def answer_late(route: Route) -> None:
        world.agents("gap")
        end(running, command_id)
        page.wait_for_timeout(1000)  # for the event: nothing on the page shows that it has arrived
        route.continue_()

    page.route("**/history", answer_late)
    log_in(page, running, to=f"command/{command_id}")
    expect(shown_state(page)).to_have_text("done")
    page.unroute("**/history")


def test_progress_is_shown_live(page: Page, running: HttpProcess, world: RunWorld) -> None:
    agent = world.agent("slow")

    gate = threading.Event()

    @agent.command("flash")
    def flash(context: CommandContext, version: str) -> str:
        context.progress(0.4, "writing block 40")
        assert gate.wait(30)
        return version

    agent.start(timeout=10)
    command_id = send(running, "slow", "flash")
    log_in(page, running, to=f"command/{command_id}")

    expect(page.locator(".saying")).to_contain_text("writing block 40")
    expect(page.locator(".saying b")).to_have_text("40 %")
    gate.set()
    expect(shown_state(page)).to_have_text("done")


def test_a_command_is_cancelled_with_a_reason(page: Page, running: HttpProcess) -> None:
    command_id = send(running, "nobody", "install")
    log_in(page, running, to=f"command/{command_id}")

    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.get_by_text("Enter a reason")).to_be_visible()
    answer_for(page, "it rains")

    expect(shown_state(page)).to_have_text("cancelled")


def test_a_command_is_undone_once(page: Page, running: HttpProcess, world: RunWorld) -> None:
    agent, found = world.agent("undo"), {"mode": "day"}

    @agent.command("set", undo="restore")
    def set_(version: str) -> Undoable:
        before, found["mode"] = found["mode"], version
        return Undoable(None, undo={"mode": before})

    agent.register("restore", lambda mode: found.update(mode=mode))
    agent.start(timeout=10)
    command_id = send(running, "undo", "set")
    end(running, command_id)
    log_in(page, running, to=f"command/{command_id}")

    page.get_by_role("button", name="Undo").click()
    expect(page.locator("main h1")).to_have_text("restore")
    expect(shown_state(page)).to_have_text("done")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)  # an undo has no undo
    assert found == {"mode": "day"}
    undo_id = page.url.rpartition("/")[2]
    page.go_back()
    expect(page.locator("main h1")).to_have_text("set")

    expect(page.get_by_role("link", name=undo_id[:8])).to_have_attribute("href", f"#/command/{undo_id}")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_an_undo_made_elsewhere_is_no_longer_offered(page: Page, running: HttpProcess, world: RunWorld) -> None:
    agent = world.agent("elsewhere")
    agent.command("set", undo="restore")(lambda version: Undoable(None, undo={}))
    agent.register("restore", lambda: None)
    agent.start(timeout=10)
    command_id = send(running, "elsewhere", "set")
    end(running, command_id)
    log_in(page, running, to=f"command/{command_id}")
    expect(page.get_by_role("button", name="Undo")).to_be_visible()

    running.http.post(f"/api/command/{command_id}/undo")

    expect(page.get_by_text("Undone by another command")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_all_commands_that_match_the_filters_are_cancelled(page: Page, running: HttpProcess) -> None:
    sent = [send(running, client_id, "bulk") for client_id in ("away-1", "away-2", "away-3")]
    other = send(running, "away-1", "another")
    log_in(page, running, to="commands?command_type=bulk")

    page.get_by_role("button", name="Cancel open commands").click()
    expect(page.get_by_role("dialog", name="Cancel these 3")).to_be_visible()
    answer_for(page, "wrong version")

    expect(page.locator("td .state.is-cancelled")).to_have_count(3)
    expect(page.get_by_role("button", name="Cancel open commands")).to_have_count(0)
    status = {each: running.http.get(f"/api/command/{each}").json["command"]["status"] for each in (*sent, other)}
    assert list(status.values()) == ["failed"] * 3 + ["pending"]


def test_failed_commands_are_sent_again_cancelled_ones_not(page: Page, running: HttpProcess, world: RunWorld) -> None:
    kept = send(running, "again-3", "retry")
    running.http.post(f"/api/command/{kept}/cancel", {"reason": "not wanted"})
    world.agents("again-1", "again-2", types="retry")
    world.failing |= {("again-1", "retry"), ("again-2", "retry")}
    for client_id in ("again-1", "again-2"):
        end(running, send(running, client_id, "retry"))
    world.failing.clear()
    log_in(page, running, to="commands?command_type=retry")

    page.get_by_role("button", name="Send failed commands again").click()
    expect(page.get_by_role("dialog", name="Send these 2 again")).to_be_visible()
    answer_for(page, "the cause is gone")

    eventually(lambda: sorted(world.of("retry")) == ["again-1"] * 2 + ["again-2"] * 2)
    assert running.http.get("/api/commands?client_id=again-3").json["total"] == 1


def test_filters_are_kept_in_the_url(page: Page, running: HttpProcess) -> None:
    for client_id in ("filter-1", "filter-2"):
        send(running, client_id, "sort")
    log_in(page, running, to="commands")

    page.get_by_label("Agent name").fill("filter-2")
    page.get_by_label("Agent name").press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Time").select_option("Last hour")
    page.get_by_role("button", name="pending").click()

    expect(page).to_have_url(f"{running.url}/#/commands?client_id=filter-2&last=3600&status=pending")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="done", exact=True).click()
    expect(page.get_by_role("heading", name="No command matches these filters")).to_be_visible()


def test_a_check_counts_the_agents_that_are_skipped(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("lack-1", labels={"site": "lacking"}, types="prepare")
    world.agents("lack-2", labels={"site": "lacking"}, types="verify")
    eventually(lambda: running.http.get("/api/agents?label=site%3Dlacking").json["total"] == 2)
    log_in(page, running, to="send?labels=site%3Dlacking&type=prepare")

    page.get_by_role("button", name="Check without sending").click()
    expect(page.get_by_text("1 does not support this command type and is skipped.")).to_be_visible()
    page.get_by_label("Timeout").fill("soon")
    page.get_by_role("button", name="Check without sending").click()

    expect(page.get_by_label("Timeout")).to_have_attribute("aria-invalid", "true")
    assert running.http.get("/api/commands?client_id=lack-1").json["total"] == 0


def test_failed_commands_can_be_sorted_first(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("first", types="rank")
    world.failing.add(("first", "rank"))
    failed = send(running, "first", "rank")
    end(running, failed)
    world.failing.clear()
    newest = [send(running, "first", "rank") for _ in range(2)][-1]
    end(running, newest)
    log_in(page, running, to="commands?command_type=rank")
    top = page.locator("tbody tr").first
    expect(top).to_have_attribute("data-key", newest)

    page.get_by_label("Failed first").check()

    expect(top).to_have_attribute("data-key", failed)
    expect(page).to_have_url(re.compile("order=failed"))
    page.get_by_label("Failed first").uncheck()
    expect(top).to_have_attribute("data-key", newest)


def test_a_command_is_sent_by_labels(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.agents("label-1", "label-2", labels={"site": "labelled"}, types="prepare")
    eventually(lambda: running.http.get("/api/agents?label=site%3Dlabelled").json["total"] == 2)
    log_in(page, running, to="send?labels=site%3Dlabelled")

    page.get_by_label("Command type").select_option("prepare")
    page.get_by_role("button", name="Send to 2").click()
    answer_for(page, "the new version")

    eventually(lambda: sorted(world.of("prepare")) == ["label-1", "label-2"])
    expect(page.get_by_role("heading", name="Batch")).to_be_visible()
    expect(page.locator(".crumbs")).to_contain_text("Commands/Batch")
    expect(page.locator(".batch")).to_contain_text("2 done, 0 failed, 0 open, of 2")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name="prepare", exact=True).first.click()
    expect(page.get_by_label("Details").get_by_role("link")).to_have_attribute("href", re.compile("batch_id="))


def test_input_is_validated_before_a_command_is_sent(page: Page, running: HttpProcess, world: RunWorld) -> None:
    agent = world.agent("checked")

    @agent.command("open")
    def open_(window: str, fraction: float = 1.0) -> float:
        """Open a window."""
        return fraction

    agent.start(timeout=10)
    eventually(lambda: running.http.get("/api/agents?find=checked").json["total"] == 1)
    log_in(page, running, to="send?to=checked&type=open")
    expect(page.get_by_text("Open a window.")).to_be_visible()

    page.get_by_label("fraction").fill("half")
    expect(page.get_by_text("Enter a number")).to_be_visible()
    page.get_by_label("fraction").fill("0.5")
    page.get_by_label("window").fill("left")
    page.get_by_role("button", name="Check without sending").click()
    expect(page.get_by_text("To 1, with a payload of 32 B.")).to_be_visible()
    assert running.http.get("/api/commands?client_id=checked").json["total"] == 0
    page.get_by_role("button", name="Send to 1").click()

    expect(shown_state(page)).to_have_text("done")
    expect(page.locator("pre.json").first).to_have_text("0.5")


def test_commands_are_found_by_labels_and_counted_as_a_queue(page: Page, running: HttpProcess, world: RunWorld) -> None:
    world.manager(sweep_interval=None).assign_labels("tag-1", {"tag": "one"})
    one = world.agent("tag-1")
    for kind in ("info", "verify"):
        one.register(kind, lambda version: version)
    one.start()
    world.agents("tag-2")
    for client_id in ("tag-1", "tag-2"):
        end(running, send(running, client_id, "info"))
    log_in(page, running, to="commands")
    page.get_by_label("Agent labels").fill("tag=one")
    page.get_by_label("Agent labels").press("Enter")

    rows = page.get_by_role("table", name="Commands").locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("tag-1")
    assert page.url.endswith("label=tag%3Done")
    # Live updates are filtered too.
    page.mouse.move(0, 0)
    end(running, send(running, "tag-2", "info"))
    end(running, send(running, "tag-1", "verify"))
    expect(rows.first).to_contain_text("verify")
    expect(rows).to_have_count(2)

    one.stop()
    send(running, "tag-1", "info")
    log_in(page, running, to="agents?label=tag%3Done")
    page.get_by_role("table", name="Agents").get_by_role("link", name="1", exact=True).click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("pending")


def test_the_audit_is_exported_as_csv_for_spreadsheets(page: Page, running: HttpProcess, tmp_path: Path) -> None:
    command_id = send(running, "nobody", "=1+1")
    running.http.post(f"/api/command/{command_id}/cancel", {"reason": 'said "no", twice'})
    log_in(page, running, to="audit")
    page.get_by_label("Event or command type").fill("=1+1")
    page.get_by_label("Event or command type").press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    log_in(page, running, to="audit")
    # It uses the words of the other pages.
    expect(page.locator("tr", has=page.locator(f"[href='#/command/{command_id}']")).last).to_contain_text("sent")
    assert not page.locator("main strong").filter(has_text=re.compile("completed|executing|timeout")).count()

    with page.expect_download() as started:
        page.get_by_role("button", name="Save as CSV").click()
    started.value.save_as(tmp_path / "audit.csv")

    with (tmp_path / "audit.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["command_id"] == command_id]
    assert {row["by"] for row in rows} == {"ops"}
    # A spreadsheet must not execute text as a formula.
    assert [row["command_type"] for row in rows if row["kind"] == "request"] == ["'=1+1"]
