"""One command is taken back, once, and not past a later one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.commands import Agent, CommandManager, Undoable
from lightlink.errors import CommandFailed, InvalidOption, UndoRefused

if TYPE_CHECKING:
    from helpers.commands import World


@pytest.fixture
def settings(world: World) -> dict[str, str]:
    """What the agent ``undo-me`` has set; it is running."""
    found = {"mode": "day", "level": "1"}
    agent = world.agent("undo-me")

    @agent.command("config.set", undo="config.restore", resource="config")
    def set_(name: str, value: str) -> Undoable:
        before, found[name] = found[name], value
        return Undoable({"was": before}, undo={"name": name, "value": before})

    @agent.command("config.restore")
    def restore(name: str, value: str) -> None:
        found[name] = value

    @agent.command("config.set.at.last", undo="config.restore.at.last", resource="config")
    def set_at_last(name: str, value: str) -> Undoable:
        before, found[name] = found[name], value
        return Undoable(None, undo={"name": name, "value": before})

    tries = iter(range(10))

    @agent.command("config.restore.at.last")
    def restore_at_last(name: str, value: str) -> None:
        assert next(tries) == 4
        found[name] = value

    @agent.command("plain")
    def plain() -> None: ...

    @agent.command("wrong")
    def wrong() -> Undoable:
        return Undoable(1, undo={})

    agent.start(timeout=10)
    return found


def test_a_command_is_taken_back_once(settings: dict[str, str], manager: CommandManager) -> None:
    promise = manager.send("undo-me", "config.set", {"name": "mode", "value": "night"})
    assert promise.result(10) == {"was": "day"}
    assert settings["mode"] == "night"
    undone = manager.undo(promise.command_id)
    undone.result(10)
    assert settings["mode"] == "day"
    with pytest.raises(UndoRefused, match=undone.command_id):
        manager.undo(promise.command_id)


def test_the_later_of_two_on_one_resource_goes_first(settings: dict[str, str], manager: CommandManager) -> None:
    first = manager.send("undo-me", "config.set", {"name": "mode", "value": "night"})
    assert first.result(10) == {"was": "day"}
    second = manager.send("undo-me", "config.set", {"name": "mode", "value": "dusk"})
    assert second.result(10) == {"was": "night"}
    with pytest.raises(UndoRefused, match=f"{second.command_id} has changed 'config' since"):
        manager.undo(first.command_id)
    manager.undo(second.command_id).result(10)
    manager.undo(first.command_id).result(10)
    assert settings["mode"] == "day"


def test_what_was_sent_before_and_done_later_goes_first(world: World, manager: CommandManager) -> None:
    found, go = {"mode": "day"}, threading.Event()
    agent = world.agent("undo-side-by-side")

    @agent.command("config.set", undo="config.restore", resource="config")
    def set_(value: str) -> Undoable:
        if value == "late":
            assert go.wait(30)
        before, found["mode"] = found["mode"], value
        return Undoable(None, undo={"value": before})

    @agent.command("config.restore")
    def restore(value: str) -> None:
        found["mode"] = value

    agent.start(timeout=10)
    late = manager.send("undo-side-by-side", "config.set", {"value": "late"})
    eventually(lambda: manager.get(late.command_id).status == "executing")
    early = manager.send("undo-side-by-side", "config.set", {"value": "early"})
    early.result(10)
    go.set()
    late.result(10)
    with pytest.raises(UndoRefused, match=f"{late.command_id} has changed 'config' since"):
        manager.undo(early.command_id)
    manager.undo(late.command_id).result(10)
    manager.undo(early.command_id).result(10)
    assert found == {"mode": "day"}


def test_a_later_one_may_take_many_tries_to_be_taken_back(settings: dict[str, str], manager: CommandManager) -> None:
    first = manager.send("undo-me", "config.set", {"name": "mode", "value": "night"})
    first.result(10)
    second = manager.send("undo-me", "config.set.at.last", {"name": "mode", "value": "dusk"})
    second.result(10)
    for _ in range(4):
        with pytest.raises(CommandFailed):
            manager.undo(second.command_id).result(10)
    manager.undo(second.command_id).result(10)
    manager.undo(first.command_id).result(10)
    assert settings["mode"] == "day"


@pytest.mark.usefixtures("settings")
def test_what_cannot_be_taken_back_is_refused_with_the_reason(manager: CommandManager) -> None:
    plain = manager.send("undo-me", "plain")
    plain.result(10)
    with pytest.raises(UndoRefused, match="has not said"):
        manager.undo(plain.command_id)
    failed = manager.send("undo-me", "config.set", {"name": "nothing", "value": ""})
    with pytest.raises(CommandFailed):
        failed.result(10)
    with pytest.raises(UndoRefused, match="it is failed"):
        manager.undo(failed.command_id)
    wrong = manager.send("undo-me", "wrong")
    with pytest.raises(CommandFailed, match="names no undo"):
        wrong.result(10)


def test_an_undo_that_nothing_runs_is_refused_at_the_start(url: str) -> None:
    agent = Agent("undo-you", url)
    agent.register("a", lambda: None, undo="b")
    with pytest.raises(InvalidOption, match="'b'"):
        agent.start()
    agent.stop()
