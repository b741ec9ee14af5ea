"""How far a command has come is seen by every process, while it runs and no longer."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import HttpProcess
from helpers.waiting import eventually

from lightlink.commands import CommandContext, Progress
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.commands import World
    from helpers.raw import RawPeer

    from lightlink.commands import CommandManager


class Work:
    """A command that tells how far it is, and waits: ``step`` lets it go on."""

    def __init__(self, world: World, prefix: str) -> None:
        self._steps = threading.Semaphore(0)
        agent = world.agent(prefix)

        @agent.command("work")
        def work(context: CommandContext) -> str:
            for number in range(1, 4):
                context.progress(number / 4, f"step {number}")
                self._steps.acquire(timeout=60)
            return "done"

        agent.start()

    def step(self) -> None:
        self._steps.release()


@pytest.fixture
def work(world: World, prefix: str) -> Iterator[Work]:
    made = Work(world, prefix)
    yield made
    for _ in range(6):
        made.step()


def told(command: Any) -> tuple[float, str] | None:
    return None if command.progress is None else (command.progress.fraction, command.progress.note)


def test_a_manager_that_came_later_sees_it(world: World, manager: CommandManager, work: Work, prefix: str) -> None:
    promise = manager.send(prefix, "work")
    eventually(lambda: told(manager.get(promise.command_id)) == (0.25, "step 1"))
    late = world.manager("late", sweep_interval=None)
    assert told(late.get(promise.command_id)) == (0.25, "step 1")
    assert [told(command) for command in late.list(prefix)] == [(0.25, "step 1")]
    assert told(late.promise(promise.command_id).command()) == (0.25, "step 1")
    key = manager.send(prefix, "work", idempotency_key=prefix)
    eventually(lambda: told(manager.get(key.command_id)) == (0.25, "step 1"))
    again = world.manager("late", sweep_interval=None).send(prefix, "work", idempotency_key=prefix, issued_by="manager")
    assert (again.command_id, told(again.command())) == (key.command_id, (0.25, "step 1"))
    work.step()
    eventually(lambda: told(late.get(promise.command_id)) == (0.5, "step 2"))


def test_it_is_gone_with_the_command(manager: CommandManager, work: Work, peer: RawPeer, prefix: str) -> None:
    promise = manager.send(prefix, "work")
    for _ in range(3):
        work.step()
    assert promise.result(30) == "done"
    assert manager.get(promise.command_id).progress is None

    def left() -> int:
        subject = subjects.command_progress(prefix, promise.command_id)
        info = peer.run(lambda nc: nc.jetstream().stream_info(subjects.PROGRESS_STREAM, subjects_filter=subject))
        return len(info.state.subjects or {})

    eventually(lambda: left() == 0)


def test_a_result_is_waited_for_with_progress(manager: CommandManager, work: Work, prefix: str) -> None:
    promise = manager.send(prefix, "work")
    heard: list[Progress] = []

    def hear(progress: Progress) -> None:
        heard.append(progress)
        work.step()

    assert promise.result(30, progress=hear) == "done"
    assert [each.fraction for each in heard] == [0.25, 0.5, 0.75]


def test_what_hears_of_progress_may_end_the_wait(manager: CommandManager, work: Work, prefix: str) -> None:
    def refuse(_: Progress) -> None:
        raise KeyError("enough")

    promise = manager.send(prefix, "work")
    with pytest.raises(KeyError, match="enough"):
        promise.result(30, progress=refuse)
    for _ in range(3):
        work.step()
    assert promise.result(30) == "done"


def test_three_processes_behind_a_balancer_show_it(world: World, work: Work, prefix: str) -> None:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(HttpProcess(world.url)).http for _ in range(3)]
        body = {"client_id": prefix, "command_type": "work"}
        command_id = workers[0].post("/api/command", body).json["command_id"]
        for number in range(1, 4):
            for worker in workers:
                expected = {"fraction": number / 4, "note": f"step {number}"}
                path = f"/api/command/{command_id}"
                eventually(lambda: worker.get(path).json["command"].get("progress") == expected)  # noqa: B023 - at once
            work.step()
        for worker in workers:
            assert worker.get(f"/api/command/{command_id}?wait=30").json["command"]["result"] == "done"


def test_a_note_that_is_too_long_is_cut(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    may_end = threading.Event()

    @agent.command("talk")
    def talk(context: CommandContext) -> None:
        context.progress(0.5, "x" * 100_000)
        may_end.wait(30)

    agent.start()
    promise = manager.send(prefix, "talk")
    eventually(lambda: told(manager.get(promise.command_id)) == (0.5, "x" * 4096))
    may_end.set()
