"""Runs on a real server: waves, gates, limits, and what people do."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.commands import FAST
from helpers.waiting import eventually

import lightlink
from lightlink import Service
from lightlink.errors import AgentOffline, InvalidOption, PlanInvalid, PlanNotFound, RunNotFound, RunRefused
from lightlink.runs import Approval, Orchestrator, Plan, Targets
from lightlink.runs.model.plan import one_step_plan

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


def test_a_gate_counts_each_name_once(world: RunWorld) -> None:
    world.agents(*NAMES)
    run = world.orchestrator().start(rollout(waves=[1, "rest"], between=Approval(count=2)), {"version": "4"})
    assert run.wait_for("waiting", timeout=20) == "waiting"
    run.approve("fine", by="ada")
    with pytest.raises(RunRefused, match="ada has approved already"):
        run.approve("as fine", by="ada")
    assert [(each.by, each.comment) for each in run.refresh().approvals] == [("ada", "fine")]
    assert run.state == "waiting"
    run.approve(by="bob")
    assert run.wait(20) == "completed"


def test_nobodys_answer_is_a_rejection(world: RunWorld) -> None:
    world.agents(*NAMES)
    plan = rollout(waves=[1, "rest"], between=Approval(expires=0.3), on_failure="rollback")
    run = world.orchestrator().start(plan, {"version": "4"})
    assert run.wait(20) == "rolled_back"
    assert run.refresh().reason == "nobody approved in time"
    assert [state.event for state in run.history()].count("expired") == 1
    assert world.of("undo.install") == ["a0"]


def test_a_wave_alone_is_rolled_back_where_the_plan_says_so(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.agents("hq", types="prepare")
    world.failing.add(("a2", "verify"))
    plan = Plan("p", params={"version": str}, targets=NAMES, waves=[1, 2, "rest"], on_failure="rollback_wave")
    plan.step("first", "prepare", {"a": 1}, once=True, targets=["hq"], undo=("undo.prepare", None))
    plan.steps += rollout().steps
    run = world.orchestrator().start(plan, {"version": "4"})
    assert run.wait(20) == "rolled_back"
    assert sorted(world.of("undo.install")) == ["a1", "a2"]
    assert world.of("undo.prepare") == []
    run = world.orchestrator("other").start(plan, {"version": "4"}, targets=["a2"])
    assert run.wait(20) == "rolled_back"


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


def test_steps_done_once_stand_around_the_waves(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.agents("hq", types="prepare report cleanup")
    plan = Plan("p", targets=NAMES, waves=[2, "rest"])
    plan.step("first", "prepare", {"a": 1}, once=True, targets=["hq"])
    plan.step("install", "install", {"version": "${first.result.version}"})
    plan.step("tell", "report", {"wave": "${run.wave}", "of": "${run.plan}"}, once=True, targets=["hq"])
    plan.step("end", "cleanup", once=True, targets=["hq"], always=True)
    ops = world.orchestrator()
    assert ops.start(plan).wait(20) == "completed"
    kinds = [kind for _, kind, _ in world.done]
    assert kinds == ["prepare", *["install"] * 5, "report", "cleanup"]
    assert {version for _, kind, version in world.done if kind == "install"} == {"3"}
    world.done.clear()
    world.failing.add(("a1", "install"))
    assert ops.start(plan).wait(20) == "failed"
    first, *installs, last = [kind for _, kind, _ in world.done]
    assert (first, set(installs), last) == ("prepare", {"install"}, "cleanup")  # a0 may have been barred from it


def test_a_run_waits_for_the_lock_that_another_has(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["install"] = threading.Event()
    ops = world.orchestrator()
    first = ops.start(rollout(lock="device:${client_id}"), {"version": "4"})
    eventually(lambda: len(world.of("install")) == 5)
    other = rollout(lock="device:a3", on_locked="fail")
    refused = ops.start(other, {"version": "5"}, targets=["a3"])
    assert refused.wait(20) == "failed"
    assert first.run_id in refused.refresh().reason
    second = ops.start(rollout(lock="device:a3"), {"version": "5"}, targets=["a3"])
    assert second.wait_for("queued", timeout=20) == "queued"
    assert ops.locks() == {f"device:{name}": first.run_id for name in NAMES}
    world.gates["install"].set()
    assert first.wait(20) == "completed"
    assert second.wait(20) == "completed"
    eventually(lambda: not ops.locks())


@pytest.mark.parametrize("on_locked", ["queue", "fail", "replace"])
def test_an_ended_run_takes_its_locks_again_to_roll_back(world: RunWorld, on_locked: Any) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    ended = ops.start(rollout(lock="firmware", on_locked=on_locked), {"version": "4"}, targets=["a1"])
    assert ended.wait(20) == "completed"
    world.gates["install"] = threading.Event()
    other = ops.start(rollout(lock="firmware"), {"version": "5"}, targets=["a1"])
    eventually(lambda: len(world.of("install")) == 2)
    ended.rollback("as it was")
    work = ops._runner
    assert work is not None
    eventually(lambda: len(work._pulls) == 1)  # it has looked for the lock, and waits
    assert (ended.state, world.of("undo.install")) == ("rolling_back", [])
    assert ops.locks() == {"firmware": other.run_id}
    world.gates["install"].set()
    assert other.wait(20) == "completed"
    assert ended.wait_for("rolled_back", timeout=20) == "rolled_back"
    assert world.of("undo.install") == ["a1"]
    events = [state.event for state in ended.history()]
    assert events[events.index("rollback asked") :] == ["rollback asked", "locked", "rolled back", "rolled_back"]
    eventually(lambda: not ops.locks())


def test_a_later_run_replaces_the_one_that_has_its_lock(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["install"] = threading.Event()
    ops = world.orchestrator()
    plan = rollout(lock="firmware", on_locked="replace")
    first = ops.start(plan, {"version": "4"}, targets=["a1"])
    eventually(lambda: len(world.of("install")) == 1)
    second = ops.start(plan, {"version": "5"}, targets=["a2"])
    third = ops.start(plan, {"version": "6"}, targets=["a3"])
    eventually(lambda: first.state == "stopping")
    world.gates["install"].set()
    assert first.wait(30) == "cancelled"
    assert first.refresh().reason in {f"replaced by run {each.run_id}" for each in (second, third)}
    # Whichever of the two came first: the later one has the last word.
    assert third.wait(30) == "completed"
    if second.wait(30) == "cancelled":
        assert second.refresh().reason == f"replaced by run {third.run_id}"
    else:
        assert second.state == "completed"


def test_a_run_does_not_replace_a_later_one(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["install"] = threading.Event()
    ops = world.orchestrator()
    holder = ops.start(rollout(lock="firmware"), {"version": "4"}, targets=["a1"])
    eventually(lambda: len(world.of("install")) == 1)
    earlier = ops.start(rollout(lock="firmware", on_locked="queue"), {"version": "5"}, targets=["a2"])
    assert earlier.wait_for("queued", timeout=20) == "queued"
    later = ops.start(rollout(lock="firmware", on_locked="replace"), {"version": "6"}, targets=["a3"])
    eventually(lambda: holder.state in ("stopping", "cancelled"))
    world.gates["install"].set()
    assert holder.wait(30) == "cancelled"
    assert later.wait(30) == "completed"
    assert earlier.wait(30) in ("completed", "cancelled")


def test_a_lock_taken_away_is_in_the_audit(world: RunWorld) -> None:
    world.agents("a0")
    world.gates["install"] = threading.Event()
    ops = world.orchestrator()
    run = ops.start(rollout(lock="firmware"), {"version": "4"}, targets=["a0"])
    eventually(lambda: len(world.of("install")) == 1)
    assert ops.unlock("firmware", by="ada")
    assert not ops.unlock("firmware", by="ada")
    assert ops.locks() == {}
    ops.freeze("Christmas", by="bob")
    ops.thaw(by="cy")
    ops.store_plan(rollout(), by="dan")
    ops.schedule("nightly", "firmware", {"version": "4"}, cron="30 2 * * *", issued_by="eve")
    ops.unschedule("nightly", by="fay")
    ops.remove_plan("firmware", by="gus")
    world.gates["install"].set()
    assert run.wait(20) == "completed"
    told = [(each.by, each.event) for each in ops.audit() if each.kind == "run"]
    for deed in (
        ("ada", "unlocked"),
        ("bob", "frozen"),
        ("cy", "thawed"),
        ("dan", "plan stored"),
        ("eve", "schedule added"),
        ("fay", "schedule removed"),
        ("gus", "plan removed"),
    ):
        assert deed in told
    (unlocked,) = [each for each in ops.audit() if each.event == "unlocked"]
    assert (unlocked.run_id, unlocked.reason) == (run.run_id, "firmware")


def test_a_stored_plan_is_started_by_its_name(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops, other = world.orchestrator(), world.orchestrator("other")
    assert ops.store_plan(rollout()).by == "ops"
    assert [(each.name, each.plan) for each in other.plans()] == [("firmware", ops.plan("firmware"))]
    assert other.check("firmware", {"version": "4"}).targets == 5
    run = other.start("firmware", {"version": "4"})
    assert run.wait(20) == "completed"
    assert ops.remove_plan("firmware")
    assert not ops.remove_plan("firmware")
    assert ops.plans() == []
    with pytest.raises(PlanNotFound, match="no plan is stored as 'firmware'"):
        ops.start("firmware", {"version": "4"})
    with pytest.raises(InvalidOption, match="name of a stored one"):
        ops.start(7)  # type: ignore[arg-type]


def test_what_is_stored_by_name_outlives_the_audit(world: RunWorld) -> None:
    """A schedule that comes once a year, and a freeze, are still there after the runs of a month are gone."""
    world.options = attrs.evolve(FAST, audit_retention=1.0)
    ops = world.orchestrator()
    ops.store_plan(rollout())
    ops.schedule("yearly", "firmware", {"version": "4"}, cron="30 2 1 1 *")
    ops.freeze("for good")
    with pytest.raises(PlanInvalid, match="timeout: is longer than what runs do is kept: 1 s"):
        ops.start(rollout(), {"version": "4"}, targets=["nobody"])
    run = ops.start(rollout(timeout=1), {"version": "4"}, targets=["nobody"])
    eventually(lambda: all(each.run_id != run.run_id for each in ops.runs()))
    assert [each.name for each in ops.schedules()] == ["yearly"]
    assert [each.name for each in ops.plans()] == ["firmware"]
    assert ops.thaw()


def test_a_soak_passes_between_waves_and_a_deadline_ends_it(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[1, "rest"], soak=0.3), {"version": "4"})
    states = [state.state for state in run]
    assert run.state == "completed"
    assert "soaking" in states
    late = ops.start(rollout(waves=[1, "rest"], soak=60, timeout=1), {"version": "4"})
    assert late.wait(20) == "failed"
    assert "longer than 1 s" in late.refresh().reason


def test_a_step_may_call_a_service(world: RunWorld) -> None:
    world.agents(*NAMES)
    service = Service("planner", world.url)
    asked: list[Any] = []

    @service.rpc
    def allow(client: str, plan: str) -> dict[str, Any]:
        asked.append((client, plan))
        if client == "a4":
            raise ValueError("not this one")
        return {"go": client != "a3"}

    plan = Plan("p", targets=NAMES, max_failures=1)
    plan.step("ask", call="planner.allow", args={"client": "${client_id}", "plan": "${run.plan}"})
    plan.step("install", "install", when=["${ask.result.go}", "==", True])
    with service:
        run = world.orchestrator().start(plan)
        assert run.wait(20) == "completed", run.refresh().reason
    assert sorted(asked) == [(name, "p") for name in NAMES]
    assert sorted(world.of("install")) == ["a0", "a1", "a2"]
    assert run.counts() == {"done": 4, "failed": 1}
    (failed,) = run.targets(outcome="failed")
    assert (failed.client_id, failed.step) == ("a4", "ask")
    assert "not this one" in failed.error


def test_a_halt_does_not_wait_for_a_dead_caller(world: RunWorld) -> None:
    """Whoever calls a service writes that down before; when that one is killed, nothing tells of the call's end."""
    service, asked, go = Service("planner", world.url), threading.Event(), threading.Event()

    @service.rpc
    def allow() -> None:
        asked.set()
        assert go.wait(30)

    run = world.orchestrator(work=False).start(Plan("p", targets=["a0"]).step("ask", call="planner.allow", timeout=2))
    dying = world.client(name="dying", timeout=5.0)
    with service, Orchestrator(dying, store=world.options):
        assert asked.wait(20)
        dying.close()  # it can write no more
        go.set()
    run.cancel("enough")
    world.orchestrator("other")
    assert run.wait(30) == "cancelled"
    assert run.counts() == {"unknown": 1}


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_call_of_a_dead_caller_is_repeated_only_if_idempotent(world: RunWorld, idempotent: bool) -> None:
    service, asked, go = Service("planner", world.url), threading.Semaphore(0), threading.Event()

    @service.rpc
    def allow() -> None:
        asked.release()
        assert go.wait(30)

    plan = Plan("p", targets=["a0"]).step("ask", call="planner.allow", timeout=2, idempotent=idempotent)
    run = world.orchestrator(work=False).start(plan)
    dying = world.client(name="dying", timeout=5.0)
    with service, Orchestrator(dying, store=world.options):
        assert asked.acquire(timeout=20)
        dying.close()
        go.set()
        world.orchestrator("other")
        assert run.wait(30) == ("completed" if idempotent else "failed")
        assert asked.acquire(timeout=0.1) is idempotent
    assert run.counts() == {"done" if idempotent else "unknown": 1}


@pytest.mark.parametrize("lock", [[], "everything"])
def test_a_plan_may_have_no_waves(world: RunWorld, lock: Any) -> None:
    world.agents("hq")
    ops = world.orchestrator()
    plan = Plan("p", lock=lock, on_failure="rollback")
    plan.step("first", "info", once=True, targets=["hq"], undo=("undo.info", None))
    plan.step("then", "install", {"version": "${first.result.version}"}, once=True, targets=["hq"])
    plan.step("end", "verify", once=True, targets=["hq"], always=True)
    assert ops.check(plan).waves == []
    run = ops.start(plan)
    assert run.wait(20) == "completed"
    assert world.done == [("hq", "info", None), ("hq", "install", "3"), ("hq", "verify", None)]
    run.rollback()
    assert run.wait_for("rolled_back", timeout=20) == "rolled_back"
    assert world.of("undo.info") == ["hq"]
    world.done.clear()
    world.failing.add(("hq", "install"))
    run = ops.start(plan)
    assert run.wait(20) == "rolled_back"
    assert [kind for _, kind, _ in world.done] == ["info", "install", "undo.info", "verify"]
    always = Plan("p").step("end", "verify", once=True, targets=["hq"], always=True)
    assert ops.start(always).wait(20) == "completed"


def test_an_agent_that_never_comes_is_a_failure(world: RunWorld) -> None:
    world.agents("a0")
    plan = Plan("p", targets=["a0", "gone"], on_failure="rollback")
    plan.step("install", "install", timeout=2, undo=("undo.install", None))
    run = world.orchestrator().start(plan)
    assert run.wait(30) == "rolled_back"
    assert world.of("undo.install") == ["a0"]
    assert run.counts() == {"done": 1, "not_run": 1}


def test_what_may_have_run_is_told_and_never_guessed(world: RunWorld) -> None:
    world.agents(*NAMES[:2])
    world.gates["install"] = threading.Event()
    plan = Plan("p", targets=NAMES[:2], on_failure="rollback")
    plan.step("install", "install", timeout=2, undo=("undo.install", None))
    run = world.orchestrator().start(plan)
    assert run.wait(30) == "rollback_incomplete"
    world.gates["install"].set()
    assert [(each.client_id, each.step) for each in run.attention] == [("a0", "install"), ("a1", "install")]
    assert all("may have run" in each.reason for each in run.attention)


@pytest.mark.parametrize("step", ["before", "install", "verify"])
def test_a_rollback_works_whichever_step_fails(world: RunWorld, step: str) -> None:
    world.agents("a0")
    kinds = {"before": "info", "install": "install", "verify": "verify"}
    world.failing.add(("a0", kinds[step]))
    plan = Plan("p", targets=["a0"], on_failure="rollback")
    for name, kind in kinds.items():
        plan.step(name, kind, undo=(f"undo.{kind}", None))
    run = world.orchestrator().start(plan)
    assert run.wait(20) == "rolled_back"
    done = [kind for kind in kinds.values() if world.of(kind) and ("a0", kind) not in world.failing]
    assert [kind for _, kind, _ in world.done if kind.startswith("undo.")] == [
        f"undo.{kind}" for kind in reversed(done)
    ]


def test_an_ended_run_is_rolled_back_when_asked_and_again(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    run = ops.start(rollout(), {"version": "4"})
    assert run.wait(20) == "completed"
    world.failing.add(("a2", "undo.install"))
    run.rollback("it was a bad idea")
    assert run.wait_for("rollback_incomplete", timeout=20) == "rollback_incomplete"
    assert [each.client_id for each in run.attention] == ["a2"]
    world.failing.clear()
    run.rollback()
    assert run.wait_for("rolled_back", timeout=20) == "rolled_back"
    assert sorted(world.of("undo.install")) == [*NAMES[:3], "a2", *NAMES[3:]]
    with pytest.raises(RunRefused):
        run.retry()


def test_a_key_starts_one_run_and_runs_are_listed(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    first = ops.start(rollout(), {"version": "4"}, idempotency_key="CHG-1", reason="the change")
    again = ops.start(rollout(), {"version": "4"}, idempotency_key="CHG-1")
    assert again.run_id == first.run_id
    assert first.wait(20) == "completed"
    assert len(world.of("info")) == 5
    (listed,) = ops.runs()
    assert (listed.run_id, listed.plan, listed.state, listed.targets) == (first.run_id, "firmware", "completed", 5)
    assert ops.runs(state="waiting") == []
    assert ops.run(first.run_id).counts() == {"done": 5}
    with pytest.raises(InvalidOption, match="CHG-1"):
        ops.start(Plan("other", targets=["a0"]).step("x", "info"), idempotency_key="CHG-1")
    with pytest.raises(RunNotFound):
        ops.run("nonsense")


def test_labels_mean_known_agents_and_the_check_tells_who_is_off(world: RunWorld) -> None:
    world.agents("b0", "b1", labels={"site": "berlin"})
    ops = world.orchestrator()
    ops.assign_labels("b2", {"site": "berlin"})  # it is known, and offline
    eventually(lambda: len(ops.clients({"site": "berlin"})) == 2)
    plan = Plan("p", targets=Targets(labels={"site": "berlin"}), waves=["50%", "rest"]).step("info", "info", timeout=1)
    assert ops.check(plan).offline == ["b2"]
    assert ops.check(plan).waves == [["b0", "b1"], ["b2"]]
    assert [(each.wave, each.client_id) for each in ops.check(plan).messages] == [(1, "b0"), (1, "b1"), (2, "b2")]
    plan.targets = Targets(labels={"site": "berlin"}, offline="skip")
    assert ops.check(plan).waves == [["b0"], ["b1"]]
    plan.targets = Targets(labels={"site": "berlin"}, offline="fail")
    with pytest.raises(AgentOffline, match="b2"):
        ops.start(plan)
    plan.targets = Targets(ids=["b2"], offline="skip")
    with pytest.raises(PlanInvalid, match="all are offline, and offline: skip leaves them out: b2"):
        ops.start(plan)
    plan.targets = Targets(labels={"site": "rome"})
    with pytest.raises(PlanInvalid, match="no agent that was ever seen has site=rome"):
        ops.start(plan)


def test_another_orchestrator_goes_on_when_one_stops(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["install"] = threading.Event()
    first, second = world.orchestrator("one"), world.orchestrator("two")
    runs = [first.start(rollout(), {"version": "4"}) for _ in range(4)]
    eventually(lambda: len(world.of("install")) >= 5)
    first.close()
    world.gates["install"].set()
    assert [second.run(run.run_id).wait(30) for run in runs] == ["completed"] * 4
    assert len(world.of("install")) == 20


def test_a_pull_that_the_server_forgot_would_be_noticed(world: RunWorld) -> None:
    """A leader that is killed takes the pulls with it: without heartbeats runs would stand still for half a minute."""
    with world.client().subscribe("$JS.API.CONSUMER.MSG.NEXT.LIGHTLINK_RUNS.runners") as pulls:
        world.orchestrator()
        eventually(lambda: "idle_heartbeat" in pulls.get(timeout=30).data)


def test_the_audit_tells_who_did_what_to_runs(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[1, "rest"], between=Approval()), {"version": "4"}, reason="CHG-1", issued_by="ada")
    assert run.wait_for("waiting", timeout=20) == "waiting"
    run.approve("fine", by="bob")
    assert run.wait(20) == "completed"
    told = [(entry.event, entry.by, entry.status) for entry in ops.audit() if entry.kind == "run"]
    assert told[0] == ("started", "ada", "running")
    assert ("approved", "bob", "running") in told
    assert told[-1] == ("completed", "", "completed")
    assert {entry.digest for entry in ops.audit() if entry.kind == "run"} == {run.digest}
    assert [state.event for state in run.history()] == [event for event, _, _ in told]
    instants = [entry.at for entry in ops.audit()]
    assert instants == sorted(instants)
    assert all(entry.kind != "run" for entry in ops.audit(ops.list(limit=1)[0].command_id))


def test_sending_to_many_outlives_the_manager(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.gates["info"] = threading.Event()
    first, second = world.orchestrator("one"), world.orchestrator("two")
    run = first.send_many(NAMES, "info", durable=True, max_concurrency=2)
    eventually(lambda: len(world.of("info")) == 2)
    first.close()
    world.gates["info"].set()
    assert second.run(run.run_id).wait(20) == "completed"
    assert sorted(world.of("info")) == NAMES
    assert second.send_many(NAMES, "info").wait(20)
    world.failing.update((name, "info") for name in NAMES)
    stopped = second.send_many(NAMES, "info", durable=True, max_concurrency=1, max_failures=1)
    assert stopped.wait(20) == "failed"
    assert stopped.counts() == {"failed": 2, "left": 3}


def test_a_durable_send_takes_what_any_send_takes(world: RunWorld) -> None:
    world.agents("a0", labels={"site": "b"})
    world.agents("a1")
    ops = world.orchestrator()
    taken: list[tuple[Any, dict[str, Any], list[str]]] = [
        (["a0", "a0"], {}, ["a0"]),
        (None, {"labels": {"site": "b"}}, ["a0"]),
        (None, {"labels": {}}, ["a0", "a1"]),
    ]
    refused: list[tuple[Any, dict[str, Any]]] = [
        ("abc", {}),
        (["a0"], {"labels": {}}),
        (["a0"], {"max_concurrency": 0}),
        (["a0"], {"max_failures": -1}),
        (["a0"], {"timeout": FAST.retention + 1}),
        (["a0"], {"timeout": 0}),
    ]
    for client_ids, options, reached in taken:
        for durable in (False, True):
            world.done.clear()
            sent = ops.send_many(client_ids, "info", {"text": "${HOME} $${x}"}, durable=durable, **options)
            assert sent.wait(20)
            assert sorted(world.done) == [(each, "info", {"text": "${HOME} $${x}"}) for each in reached]
    for client_ids, options in refused:
        for durable in (False, True):
            with pytest.raises(InvalidOption):
                ops.send_many(client_ids, "info", durable=durable, **options)
    with pytest.raises(InvalidOption, match="at least one"):
        ops.send_many([], "info", durable=True)


def test_a_durable_send_has_time_for_each_of_its_rounds() -> None:
    plan = one_step_plan(NAMES, "info", timeout=3 * 86_400, kept=7 * 86_400)
    assert plan.steps[0].seconds < plan.seconds < 4 * 86_400
    assert one_step_plan(NAMES, "info", timeout=86_400, max_concurrency=2, kept=7 * 86_400).seconds > 3 * 86_400
    assert one_step_plan(NAMES, "info", timeout=86_400, max_concurrency=1, kept=86_400).seconds == 86_400


def test_handlers_know_which_run_they_belong_to(world: RunWorld) -> None:
    agent, seen = world.agent("knows"), []
    agent.register("info", lambda: seen.append(lightlink.log_context()["run_id"]))
    agent.start(timeout=10)
    run = world.orchestrator().start(Plan("p", targets=["knows"]).step("info", "info"))
    assert run.wait(20) == "completed"
    assert seen == [run.run_id]


def test_a_run_is_followed_though_clocks_go_back(world: RunWorld) -> None:
    world.agents("a0")
    world.gates["info"] = threading.Event()
    ops = world.orchestrator()
    run, seen = ops.start(Plan("p", targets=["a0"]).step("info", "info")), []
    for state in run.follow(20):
        seen.append(state.state)
        instant = time.monotonic()  # another server answers, whose clock is behind
        ops.connection.clock.learn(ops.now() - timedelta(seconds=60), instant, instant)
        world.gates["info"].set()
    assert seen[-1] == "completed"


def test_all_runs_are_watched(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    with ops.watch_runs() as watcher:
        run = ops.start(rollout(), {"version": "4"})
        seen = []
        while (state := watcher.get(20)) is not None:
            seen.append((state.run_id, state.event))
            if state.ended:
                break
    assert seen[0] == (run.run_id, "started")
    assert seen[-1] == (run.run_id, "completed")


def test_a_type_agents_do_not_take_is_refused_before_sending(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    plan = Plan("p", targets=NAMES).step("info", "info").step("odd", "instal", undo=("undo.odd", None))
    with pytest.raises(PlanInvalid) as caught:
        ops.start(plan)
    assert [place for place, _ in caught.value.faults] == ["steps[1].command", "steps[1].undo.command"]
    assert "a0, a1, a2 and 2 more: no command of type 'instal'" in str(caught.value)
    assert world.done == []
    other = world.agent("any", executor=type("E", (), {"execute": lambda _, kind, __: kind})())
    other.start(timeout=10)
    assert ops.start(plan, targets=["any"]).wait(20) == "completed"


def test_a_retry_does_not_pass_a_gate_that_nobody_passed(world: RunWorld) -> None:
    world.agents(*NAMES)
    ops = world.orchestrator()
    run = ops.start(rollout(waves=[1, 1, "rest"], between=Approval()), {"version": "4"})
    assert run.wait_for("waiting", timeout=20) == "waiting"
    run.approve()
    assert run.wait_for("running", timeout=20) == "running"
    assert run.wait_for("waiting", timeout=20) == "waiting"
    run.cancel()
    assert run.wait(20) == "cancelled"
    run.retry()
    assert run.wait_for("waiting", timeout=20) == "waiting"
    assert sorted(world.of("info")) == ["a0", "a1"]
    run.approve()
    assert run.wait(20) == "completed"


def test_state_is_kept_before_a_run_and_restored_by_a_rollback(world: RunWorld) -> None:
    world.agents(*NAMES)
    world.failing.add(("a3", "verify"))
    bucket = world.client().state("devices")
    bucket.set("site.mode", "day")
    plan = Plan("p", targets=NAMES, on_failure="rollback")
    plan.step("keep", snapshot="devices/site.*", once=True, undo="own")
    plan.step("install", "install").step("verify", "verify")
    world.gates["install"] = threading.Event()
    run = world.orchestrator().start(plan)
    eventually(lambda: len(world.of("install")) == 5)
    bucket.set("site.mode", "night")
    bucket.set("site.new", 1)
    world.gates["install"].set()
    assert run.wait(20) == "rolled_back"
    assert bucket.keys("site.*") == ["site.mode"]
    assert bucket.get("site.mode") == "day"
    for options in ({"snapshot": "nonsense"}, {"snapshot": "a/b", "command": "x"}, {"snapshot": "a/b", "payload": 1}):
        with pytest.raises(PlanInvalid):
            Plan.of({"name": "p", "targets": ["a0"], "steps": [{"name": "s", **options}]})
