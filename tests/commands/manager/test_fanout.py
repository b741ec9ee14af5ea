"""However many watch the commands, they are read once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink.commands.manager import fanout
from lightlink.commands.store import changes
from lightlink.errors import ClosedError, InvalidName, StoreUnavailable
from lightlink.jetstream import api
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from lightlink.commands import CommandManager
    from lightlink.commands.manager.fanout import Watcher


@pytest.fixture
def manager(fresh_server: StartServer) -> Iterator[CommandManager]:
    """A manager on a server of the test's own: everything that is told is its doing."""
    with World(fresh_server().url) as world:
        yield world.manager(sweep_interval=None)


def readers(manager: CommandManager) -> int:
    return len(api.consumer_names(manager._connection, subjects.AUDIT_STREAM, 5.0))


def take(watcher: Watcher, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        change = watcher.get(30)
        assert change is not None
        found.append(f"{change.command.client_id} {change.command.status}")
    return found


def test_all_watchers_are_told_the_same_by_one_reader(manager: CommandManager) -> None:
    with contextlib.ExitStack() as stack:
        watchers = [manager.watch() for _ in range(20)]
        only_b = manager.watch("b")
        for each in (*watchers, only_b):
            stack.callback(each.close)
        assert readers(manager) == 1
        for client_id in ("a", "b", "c"):
            promise = manager.send(client_id, "work")
            told = [take(each, 1) for each in watchers]
            manager.cancel(promise.command_id)
            assert told == [[f"{client_id} pending"]] * 20
            assert [take(each, 1) for each in watchers] == [[f"{client_id} failed"]] * 20
        assert take(only_b, 2) == ["b pending", "b failed"]
        assert only_b.get(0.01) is None
    eventually(lambda: readers(manager) == 0)
    with contextlib.closing(manager.watch()) as again:
        manager.send("d", "work")
        assert take(again, 1) == ["d pending"]


def test_who_falls_behind_is_ended_and_others_are_not(manager: CommandManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "_BEHIND", 3)
    slow, quick = manager.watch(), manager.watch()
    for number in range(8):
        manager.send(f"a{number}", "work")
        assert take(quick, 1) == [f"a{number} pending"]
    assert take(slow, 3) == ["a0 pending", "a1 pending", "a2 pending"]
    with pytest.raises(StoreUnavailable, match="more than 3 changes wait"):
        slow.get(1)
    slow.close()
    quick.close()


def test_the_end_of_a_manager_ends_its_watchers(manager: CommandManager) -> None:
    watcher = manager.watch()
    manager.close()
    with pytest.raises(ClosedError):
        watcher.get(1)
    watcher.close()
    with pytest.raises(ClosedError):
        manager.watch()


def test_a_bad_client_id_is_named(manager: CommandManager) -> None:
    with pytest.raises(InvalidName):
        manager.watch("a.b")


def test_many_commands_under_way_are_not_looked_up(manager: CommandManager, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    find = manager._store.get_request
    count = 700  # it was more than 512 that were looked up
    with contextlib.closing(changes.Changes(manager.store)) as watched:
        manager.send_many([f"a{number}" for number in range(count)], "work", timeout=600)
        sent: list[str] = []
        while len(sent) < count:
            change = watched.get(30)
            assert change is not None
            sent.append(change.command.command_id)
        monkeypatch.setattr(
            manager._store,
            "get_request",
            lambda *ids: looked_up.append(ids[1]) or find(*ids),
        )
        manager.cancel(sent[0])
        ended = eventually(lambda: watched.get(30))
    assert (ended.command.command_id, ended.command.status) == (sent[0], "failed")
    assert looked_up == []
