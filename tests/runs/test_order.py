"""Threads of one manager come to the revisions of a run in any order: what is overtaken is not worked on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from helpers.waiting import eventually

from lightlink.runs import Plan, runner
from lightlink.runs.active import Active

if TYPE_CHECKING:
    import pytest
    from helpers.runs import RunWorld


class Late:
    """Has the thread that comes to a revision, told by its event, stand still until ``go``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
        self.come, self.go = threading.Event(), threading.Event()
        self._event = event
        monkeypatch.setattr(runner, "Active", self)

    def __call__(self, ports: Any, run: Any, state: Any, *more: Any) -> Active:
        if state.event == self._event:
            self.come.set()
            assert self.go.wait(30)
        return Active(ports, run, state, *more)


def test_a_late_revision_does_not_take_the_place_of_a_newer(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer would be dropped, and held: the run would stand still for ever."""
    world.agents("a0")
    world.gates["install"] = threading.Event()
    late = Late(monkeypatch, "resumed")
    ops = world.orchestrator()
    work = ops._runner
    assert work is not None
    run = ops.start(Plan("p", targets=["a0"]).step("install", "install"))
    eventually(lambda: world.of("install"))
    run.pause("wait")
    run.resume()
    assert late.come.wait(30)
    run.cancel("enough")
    eventually(lambda: [each for each in work._active.values() if each.state.event == "cancelled" and each._works])
    late.go.set()
    eventually(lambda: len(work._pulls) == 1)  # the late one is settled
    world.gates["install"].set()
    assert run.wait(30) == "cancelled"


def test_what_was_paused_before_it_began_sends_nothing(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells it of the pause any more."""
    world.agents("a0")
    late = Late(monkeypatch, "started")
    ops = world.orchestrator()
    work = ops._runner
    assert work is not None
    run = ops.start(Plan("p", targets=["a0"]).step("install", "install"))
    assert late.come.wait(30)
    run.pause("wait")
    eventually(lambda: len(work._pulls) == 1)  # the pause waits, and was told
    late.go.set()
    eventually(lambda: len(work._pulls) == 0)
    assert ops.list("a0") == []
    run.resume()
    assert run.wait(30) == "completed"
    assert world.of("install") == ["a0"]
