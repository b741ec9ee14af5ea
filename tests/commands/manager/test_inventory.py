"""What is kept of agents that were ever seen, and the labels that somebody gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink.errors import InvalidName, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from lightlink.commands import Agent, CommandManager


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[World]:
    """Managers and agents on a server of the test's own: the inventory is one for all."""
    with World(fresh_server().url) as world:
        yield world


def start(world: World, client_id: str, **labels: str) -> Agent:
    agent = world.agent(client_id, labels=labels)
    agent.register("echo", lambda: 1)
    return agent.start()


def only(manager: CommandManager, **wanted: str) -> list[str]:
    return [agent.client_id for agent in manager.agents(wanted)]


def test_an_agent_that_has_left_is_known_still(world: World) -> None:
    manager = world.manager(sweep_interval=None)
    agent = start(world, "a", site="berlin")
    (seen,) = manager.agents()
    assert (seen.online, seen.labels, seen.command_types) == (True, {"site": "berlin"}, ["echo"])
    assert seen.version
    assert "Python" in seen.platform
    assert manager._inventory.look() == 1
    agent.stop()
    eventually(lambda: not manager.clients())
    (left,) = manager.agents()
    assert (left.online, left.labels) == (False, {"site": "berlin"})
    assert manager.agents(online=True) == []
    assert only(manager, site="berlin") == ["a"]
    assert only(manager, site="munich") == []


def test_one_manager_at_a_time_looks(world: World) -> None:
    first, second = (world.manager(sweep_interval=None) for _ in range(2))
    start(world, "a")
    assert [first._inventory.look(), second._inventory.look(), first._inventory.look()] == [1, 0, 0]
    assert [record.client_id for record in second.agents(online=True)] == ["a"]


def test_assigned_labels_count_before_an_agent_s_own(world: World) -> None:
    manager = world.manager(sweep_interval=None)
    start(world, "a", site="berlin", kind="pump")
    manager.assign_labels("a", {"site": "munich", "line": "7"})
    assert manager.agents()[0].labels == {"site": "munich", "kind": "pump", "line": "7"}
    assert (only(manager, site="berlin"), only(manager, site="munich")) == ([], ["a"])
    manager.assign_labels("a", {"kind": ""})
    manager._inventory.look()
    assert manager.agents()[0].labels == {"site": "munich", "line": "7"}
    manager.forget_agent("a")
    assert manager.agents()[0].labels == {"site": "berlin", "kind": "pump"}


def test_a_batch_by_labels_reaches_who_is_offline_if_asked(world: World) -> None:
    manager = world.manager(sweep_interval=None)
    start(world, "here", site="berlin")
    manager.assign_labels("away", {"site": "berlin"})
    batch = manager.send_many(None, "echo", labels={"site": "berlin"})
    assert [each.client_id for each in batch] == ["here"]
    batch = manager.send_many(None, "echo", labels={"site": "berlin"}, offline=True)
    start(world, "away")
    assert sorted(each.client_id for each in batch) == ["away", "here"]


def test_labels_that_cannot_be_are_named(world: World) -> None:
    manager = world.manager(sweep_interval=None)
    with pytest.raises(InvalidOption, match="labels"):
        manager.assign_labels("a", {"site": 7})  # type: ignore[dict-item]
    with pytest.raises(InvalidName):
        manager.assign_labels("a.b", {"site": "x"})
