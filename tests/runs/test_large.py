"""What is larger than a message holds fails its step, says so, and holds up nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.commands.store.store import CommandStore
from lightlink.errors import StoreUnavailable
from lightlink.runs import Plan, trouble

if TYPE_CHECKING:
    import pytest
    from helpers.runs import RunWorld

HALF = "x" * 600_000


def test_a_snapshot_larger_than_a_message_fails_its_step(world: RunWorld) -> None:
    bucket = world.client().state("devices")
    bucket.set("site.a", HALF)
    bucket.set("site.b", HALF)
    plan = Plan("p", targets=["a0"])
    plan.step("keep", snapshot="devices/site.*", once=True, undo="own").step("install", "install")
    run = world.orchestrator().start(plan)
    assert run.wait(20) == "failed"
    assert run.refresh().reason.startswith("keep on run: the result is too large: the payload for 'll.runs.")


def test_a_command_too_large_is_refused_after_an_outage_too(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent("a0")
    agent.register("read", lambda: HALF)
    agent.register("write", lambda **_: None)
    agent.start()
    real, tries = CommandStore.write_statuses, []

    def write_statuses(*given: Any) -> Any:
        tries.append(given)
        if len(tries) == 1:
            raise StoreUnavailable("writing statuses", "no responders")
        return real(*given)

    monkeypatch.setattr(trouble, "_RETRY_SECONDS", 0.1)
    plan = Plan("p", targets=["a0"]).step("read", "read")
    plan.step("write", "write", {"one": "${read.result}", "two": "${read.result}"})
    ops = world.orchestrator()
    monkeypatch.setattr(CommandStore, "write_statuses", write_statuses)
    run = ops.start(plan)
    assert run.wait(20) == "failed"
    assert len(tries) == 2
    (result,) = run.targets()
    assert (result.outcome, result.step) == ("not_run", "write")
    assert "the server takes at most" in result.error
