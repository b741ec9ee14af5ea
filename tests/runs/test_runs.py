"""Runs on a real server: waves, gates, limits, and what people do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.errors import PlanInvalid, RunRefused
from lightlink.runs import Approval, Plan

if TYPE_CHECKING:
    from helpers.runs import RunWorld

NAMES = [f"a{number}" for number in range(5)]


def rollout(**options: object) -> Plan:
    """Return a plan of three steps, the second of which can be taken back."""
    plan = Plan("firmware", params={"version": str}, targets=NAMES, **options)  # type: ignore[arg-type]
    plan.step("before", "info")
    plan.step(
        "install",
        "install",
        {"version": "${params.version}"},
        undo=("undo.install", {"version": "${before.result.version}"}),
    )
    plan.step("verify", "verify", expect=["${result.ok}", "==", True])
    return plan


def test_a_run_does_its_steps_in_order_for_each_wave(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[1, "rest"]), {"version": "4"})
    assert run.wait(20) == "completed"
    kinds = [(client_id, kind) for client_id, kind, _ in world.done]
    assert kinds[:3] == [("a0", "info"), ("a0", "install"), ("a0", "verify")]
    assert sorted(kinds[3:7]) == [(name, "info") for name in NAMES[1:]]
    assert sorted(kinds[7:11]) == [(name, "install") for name in NAMES[1:]]
    assert sorted(kinds[11:]) == [(name, "verify") for name in NAMES[1:]]
    assert run.counts() == {"done": 5}
    assert {each for _, kind, each in world.done if kind == "install"} == {"4"}
    assert run.steps() == {name: {"done": 5} for name in ("before", "install", "verify")}


def test_too_many_failures_stop_it_and_nothing_more_begins(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.failing.add(("a1", "install"))
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[2, "rest"]), {"version": "4"})
    assert run.wait(20) == "failed"
    assert "install on a1" in run.refresh().reason
    assert set(world.of("info")) == {"a0", "a1"}
    assert world.of("verify") == []
    assert {each.client_id: each.outcome for each in run.targets()} == {
        "a0": "left",
        "a1": "failed",
        "a2": "left",
        "a3": "left",
        "a4": "left",
    }


def test_a_rollback_takes_back_what_was_done_in_reverse(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.failing.add(("a3", "verify"))
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[2, "rest"], on_failure="rollback"), {"version": "4"})
    assert run.wait(20) == "rolled_back"
    undone = [(client_id, version) for client_id, kind, version in world.done if kind == "undo.install"]
    assert sorted(undone) == [(name, "3") for name in NAMES]


def test_a_gate_waits_for_the_right_person(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    gate = Approval(by=["ops", "boss"], not_by="starter")
    run = ops.start(rollout(waves=[1, "rest"], between=gate), {"version": "4"})
    assert run.wait_for("waiting", timeout=20) == "waiting"
    for by, digest, why in (
        ("ops", None, "started it"),
        ("joe", None, "none of those"),
        ("boss", "another", "another plan"),
    ):
        with pytest.raises(RunRefused, match=why):
            run.approve(by=by, digest=digest)
    assert world.of("info") == ["a0"]
    run.approve("looks good", by="boss", digest=run.digest)
    assert run.wait(20) == "completed"


def test_a_rejected_run_ends_as_its_plan_says(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[1, "rest"], between=Approval(), on_failure="rollback"), {"version": "4"})
    assert run.wait_for("waiting", timeout=20) == "waiting"
    run.reject("too warm today")
    assert run.wait(20) == "rolled_back"
    assert world.of("undo.install") == ["a0"]


def test_nothing_begins_after_a_cancel_and_what_runs_is_told(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["install"] = threading.Event()
    ops = world.orchestrator()
    run = ops.start(rollout(max_concurrency=2), {"version": "4"})
    eventually(lambda: len(world.of("install")) == 2)
    run.cancel("enough")
    assert run.wait_for("stopping", timeout=20) == "stopping"
    world.gates["install"].set()
    assert run.wait(20) == "cancelled"
    assert len(world.of("install")) == 2
    assert world.of("verify") == []


def test_a_paused_run_begins_nothing_until_it_is_resumed(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["info"] = threading.Event()
    ops = world.orchestrator()
    run = ops.start(rollout(), {"version": "4"})
    eventually(lambda: len(world.of("info")) == 5)
    run.pause("lunch")
    world.gates["info"].set()
    eventually(lambda: all(each.ended for each in ops.list()))
    assert world.of("install") == []
    run.resume()
    assert run.wait(20) == "completed"


def test_what_failed_is_tried_again_and_what_is_done_is_not(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.failing.add(("a1", "install"))
    ops = world.orchestrator()
    run = ops.start(rollout(), {"version": "4"})
    assert run.wait(20) == "failed"
    world.failing.clear()
    run.retry()
    assert run.wait(20) == "completed"
    assert len(world.of("info")) == 5
    assert run.counts() == {"done": 5}


def test_a_bad_plan_is_refused_as_a_whole(world: RunWorld) -> None:
    ops = world.orchestrator()
    with pytest.raises(PlanInvalid) as caught:
        ops.start(rollout(), {"vresion": "4"})
    assert [place for place, _ in caught.value.faults] == ["params.version", "params.vresion"]
