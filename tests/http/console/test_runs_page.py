"""Runs in the console: approved or rejected at a gate, paused, cancelled, rolled back, scheduled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.console import READER, answer_for, expect, log_in, shown_state
from helpers.http import Http
from helpers.waiting import eventually

if TYPE_CHECKING:
    from helpers.http import HttpProcess
    from helpers.runs import RunWorld
    from playwright.sync_api import Page


@pytest.fixture
def page(kept_page: Page) -> Page:
    return kept_page


PLAN: dict[str, Any] = {
    "name": "firmware",
    "targets": ["run-1", "run-2"],
    "waves": [1, "rest"],
    "between": {"by": ["ops"], "expires": "1h"},
    "steps": [{"name": "install", "command": "install", "payload": {"version": "4"}}],
}


@pytest.fixture(scope="module")
def agents(world: RunWorld) -> None:
    world.agents("run-1", "run-2")


@pytest.fixture
def waiting(running: HttpProcess, agents: None) -> str:
    """The id of a run that waits at its gate."""
    run_id: str = running.http.post("/api/runs", {"plan": PLAN}).json["run"]["run_id"]
    eventually(lambda: state_of(running, run_id) == "waiting")
    return run_id


def state_of(running: HttpProcess, run_id: str) -> str:
    state: str = running.http.get(f"/api/runs/{run_id}").json["run"]["state"]
    return state


def test_a_waiting_run_is_found_and_approved(page: Page, running: HttpProcess, waiting: str) -> None:
    log_in(page, running)

    page.locator(".needs").get_by_role("link", name="View").first.click()
    expect(shown_state(page)).to_have_text("needs approval")
    page.goto(f"{running.url}/#/run/{waiting}")
    page.get_by_label("Comment").fill("looks good")
    page.get_by_role("button", name="Approve").click()

    expect(shown_state(page)).to_have_text("done")
    events = running.http.get(f"/api/runs/{waiting}/history").json["states"]
    approval = events[-1]["approvals"][0]
    assert (approval["by"], approval["comment"]) == ("ops", "looks good")
    row = page.get_by_role("table", name="Steps").locator("tbody tr")
    expect(row).to_contain_text("install")
    expect(row).to_contain_text("2")
    # The pages of its targets list it, and those of other agents do not.
    assert running.http.get("/api/runs?client_id=somebody").json["runs"] == []
    log_in(page, running, to="agent/run-2")
    page.get_by_role("region", name="Latest runs").locator(f"[href='#/run/{waiting}']").click()
    expect(shown_state(page)).to_have_text("done")


def test_a_waiting_run_is_rejected_and_rolled_back(page: Page, running: HttpProcess, waiting: str) -> None:
    log_in(page, running, to=f"run/{waiting}")

    page.get_by_label("Comment").fill("not on a Friday")
    page.get_by_role("button", name="Reject").click()
    expect(shown_state(page)).to_have_text("failed")
    expect(page.get_by_role("alert")).to_contain_text("rejected by ops: not on a Friday")
    page.get_by_role("button", name="Roll back").click()
    answer_for(page, "as it was")

    expect(shown_state(page)).to_have_text("rolled back")


def test_a_run_is_paused_resumed_cancelled_and_retried(page: Page, running: HttpProcess, waiting: str) -> None:
    log_in(page, running, to=f"run/{waiting}")

    page.get_by_role("button", name="Pause", exact=True).click()
    answer_for(page, "lunch")
    expect(shown_state(page)).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(shown_state(page)).to_have_text("needs approval")
    page.get_by_role("button", name="Cancel the run").click()
    answer_for(page, "enough")
    expect(shown_state(page)).to_have_text("cancelled")
    page.get_by_role("button", name="Retry failed targets").click()

    expect(shown_state(page)).to_have_text("needs approval")


def test_a_decision_made_elsewhere_is_reported(page: Page, running: HttpProcess, waiting: str) -> None:
    log_in(page, running, to=f"run/{waiting}")
    page.get_by_role("button", name="Live").click()
    running.http.post(f"/api/runs/{waiting}/reject", {"comment": "no"})
    eventually(lambda: state_of(running, waiting) == "failed")

    page.get_by_role("button", name="Approve").click()

    expect(page.get_by_role("alert").first).to_contain_text(waiting)


def test_the_scope_needed_to_decide_is_named(page: Page, running: HttpProcess, waiting: str) -> None:
    assert Http(running.url, READER).post(f"/api/runs/{waiting}/approve", {}).status == 403
    log_in(page, running, READER, f"run/{waiting}")

    expect(page.get_by_text("Deciding needs the scope approve.")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)


def test_runs_and_schedules_are_listed(page: Page, running: HttpProcess, waiting: str) -> None:
    body = {"name": "nightly", "plan": PLAN, "cron": "30 2 * * *", "tz": "Europe/Berlin"}
    running.http.post("/api/schedules", body)
    log_in(page, running, to="runs?plan=firmware")

    expect(page.get_by_role("table", name="Runs").locator(".is-waits").first).to_be_visible()
    expect(page.get_by_role("table", name="Schedules")).to_contain_text("30 2 * * * Europe/Berlin")
    page.get_by_label("Plan").fill("another")
    page.get_by_label("Plan").press("Enter")
    expect(page.get_by_role("heading", name="No run of this plan")).to_be_visible()
    page.get_by_role("button", name="Remove nightly").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()

    expect(page.get_by_role("cell", name="nightly", exact=True)).to_have_count(0)
    names = [each["name"] for each in running.http.get("/api/schedules").json["schedules"]]
    assert "nightly" not in names


def test_a_plan_is_scheduled(page: Page, running: HttpProcess, agents: None) -> None:
    running.http.post("/api/stored-plans", {"plan": {**PLAN, "name": "by-night"}})
    log_in(page, running, to="runs")

    page.get_by_role("link", name="Add a schedule").click()
    expect(page).to_have_title("Add a schedule · LightLink")
    page.get_by_label("Plan").select_option("by-night")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Schedule", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_have_value("by-night")
    dialog.get_by_label("cron").fill("61 2 * * *")
    dialog.get_by_label("Time zone").fill("Europe/Berlin")
    dialog.get_by_role("button", name="Add a schedule").click()
    expect(dialog.get_by_text("61")).to_be_visible()
    dialog.get_by_label("cron").fill("30 2 * * 1-5")
    dialog.get_by_label("Runs missed").select_option("run once, late")
    dialog.get_by_role("button", name="Add a schedule").click()

    row = page.get_by_role("table", name="Schedules").locator("tr", has_text="by-night")
    expect(row).to_contain_text("30 2 * * 1-5 Europe/Berlin")
    (made,) = [one for one in running.http.get("/api/schedules").json["schedules"] if one["name"] == "by-night"]
    assert (made["plan"], made["missed"], made["overlap"], made["by"]) == ("by-night", "run", "skip", "ops")


def test_a_plan_is_checked_and_then_started(page: Page, running: HttpProcess, agents: None) -> None:
    plan = {**PLAN, "name": "rollout", "params": {"version": "str", "tries": {"type": "int", "default": 2}}}
    steps = [{"name": "install", "command": "install", "payload": {"version": "${params.version}"}}]
    running.http.post("/api/stored-plans", {"plan": {**plan, "steps": steps, "targets": ["run-1", "run-2", "gone"]}})
    log_in(page, running, to="runs")

    page.get_by_role("link", name="Start a run").click()
    expect(page).to_have_title("Start a run · LightLink")
    page.get_by_label("Plan").select_option("rollout")
    page.get_by_role("button", name="Check").click()
    page.get_by_label("version").fill("5")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("table", name="Waves").locator("tbody tr")).to_have_count(2)
    expect(page.get_by_text("1 is offline")).to_be_visible()
    page.get_by_role("button", name="Start on 3").click()
    answer_for(page, "CHG-7")

    expect(shown_state(page)).to_have_text("needs approval")
    (run,) = running.http.get("/api/runs?plan=rollout").json["runs"]
    assert (run["reason"], run["started_by"]) == ("CHG-7", "ops")


def test_a_plan_that_cannot_run_is_refused_with_the_reason(page: Page, running: HttpProcess, agents: None) -> None:
    log_in(page, running, to="start")
    page.get_by_label("Plan").first.select_option("Custom plan")
    page.locator("textarea").first.fill('{"name": "x", "targets": ["run-1"], "waves": [0], "steps": []}')

    page.get_by_role("button", name="Check").click()

    expect(page.get_by_role("alert")).to_contain_text("waves[0]")
