"""A fleet on three servers: responders and servers are killed in turn, and agents go on, come, and are put out."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from helpers.fleet import FleetWorld, Sender
from helpers.ports import free_port
from helpers.process import stopped
from helpers.waiting import eventually

import lightlink
from lightlink.commands import CommandManager, StoreOptions
from lightlink.fleet import Fleet, enroll, fleet_config
from lightlink.jetstream import api
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lightlink.fleet import AgentFiles, Responder

T = TypeVar("T")

pytestmark = pytest.mark.slow

STORE = StoreOptions(ack_wait=1.0, heartbeat=0.5, replicas=3)


class ClusterWorld(FleetWorld):
    """A fleet on a cluster; whoever connects is given all servers."""

    def start_server(self, folder: Path) -> EmbeddedServer:
        routes = [free_port() for _ in range(3)]
        self.nodes = []
        for number, route in enumerate(routes):
            others = ", ".join(f'"nats-route://127.0.0.1:{each}"' for each in routes if each != route)
            config = fleet_config(self.directory, port=-1, store_dir=None, accounts_dir=folder / f"accounts-{number}")
            config += f'\ncluster {{ name: fleet, listen: "127.0.0.1:{route}", routes: [{others}] }}\n'
            node = EmbeddedServer(config=config, name=f"node-{number}")
            self.nodes.append(self._stack.enter_context(node))
        return self.nodes[0]

    @property
    def url(self) -> str:
        return ",".join(node.url.replace("nats://", "tls://") for node in self.nodes)

    def one(self, number: int) -> str:
        return self.nodes[number].url.replace("nats://", "tls://")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterWorld]:
    with contextlib.ExitStack() as stack:
        yield ClusterWorld(tmp_path, stack)


def test_responders_and_servers_are_killed_in_turn(cluster: ClusterWorld, tmp_path: Path) -> None:
    first = eventually(lambda: _responder(cluster))
    second = cluster.responder(replicas=3)
    client = cluster.link("manager", timeout=15.0)
    with CommandManager(client, store=STORE) as manager:
        cluster.__dict__["manager"] = manager
        admin = cluster.admin()
        files = [
            enroll(admin.token(f"a-{number}", urls=[cluster.one(number)]), tmp_path / str(number))
            for number in range(3)
        ]
        agents = [cluster.agent(each.name, tls=each.tls) for each in files]
        with Sender(manager, *(each.client_id for each in agents)) as sender:
            for victim in (first, second):
                victim.stop()
                sender.goes_on()
                late = enroll(admin.token(f"after-{id(victim)}"), tmp_path / f"late-{id(victim)}")
                cluster.agent(late.name, tls=late.tls)
                assert manager.send(late.name, "double", {"x": 21}).result(30) == 42
                eventually(lambda: _responder(cluster))
                sender.goes_on()
            # An agent that came in by one server is put out through another.
            outsider = enroll(admin.token("outsider"), tmp_path / "outsider")
            link = lightlink.connect(cluster.one(2), tls=outsider.tls, refusal_timeout=0.1)
            admin.revoke("outsider")
            eventually(lambda: link.status is lightlink.Status.CLOSED)
            for number in range(3):
                with pytest.raises(lightlink.AuthenticationError):
                    lightlink.connect(cluster.one(number), tls=outsider.tls)
            sender.goes_on()
        cluster.nodes[1].kill()
        for each in agents:
            assert manager.send(each.client_id, "double", {"x": 4}, timeout=60).result(60) == 8
        cluster.nodes[1].start()


@pytest.mark.timeout(900)
def test_a_server_that_stands_still_stops_nobody(cluster: ClusterWorld, tmp_path: Path) -> None:
    """Its sockets stay open and say nothing; it leads the commands, and is whom somebody talks to."""
    quick: dict[str, Any] = {"ping_interval": 1.0, "connect_timeout": 2.0}
    eventually(lambda: _responder(cluster))
    cluster.responder(replicas=3, **quick)
    client = cluster.link("manager", timeout=30.0, **quick)
    with CommandManager(client, store=STORE) as manager:
        cluster.__dict__["manager"] = manager
        admin = Fleet(cluster.link("ops", timeout=30.0, **quick))
        agents = []
        for number in range(3):
            files = enroll(admin.token(f"a-{number}"), tmp_path / f"a-{number}")
            agents.append(cluster.agent(files.name, tls=files.tls, **quick))
        leader = api.api(client.connection, "STREAM.INFO.LIGHTLINK_COMMANDS", None, 30.0)["cluster"]["leader"]
        (node,) = (each for each in cluster.nodes if each.name == leader)
        with stopped(node.pid):
            for each in agents:
                assert manager.send(each.client_id, "double", {"x": 4}, timeout=90).result(90) == 8
            late = _at_last(partial(_enroll, admin, "late", tmp_path))
            link = _at_last(partial(lightlink.connect, cluster.url, tls=late.tls, refusal_timeout=0.1, **quick))
            _at_last(lambda: admin.revoke("late") or True)
            eventually(lambda: link.status is lightlink.Status.CLOSED, timeout=90)
        for each in agents:
            assert manager.send(each.client_id, "double", {"x": 5}, timeout=90).result(90) == 10
        assert [each.name for each in admin.identities() if each.revoked] == ["late"]


def _at_last(action: Callable[[], T]) -> T:
    """Return what an action returns, once servers have leaders and links have found other servers."""

    def attempt() -> T | None:
        try:
            return action()
        except lightlink.FleetRefused:
            raise
        except lightlink.LightLinkError:
            return None

    return eventually(attempt, timeout=90, interval=0.1)


def _enroll(admin: Fleet, name: str, folder: Path) -> AgentFiles:
    token = admin.token(name)
    return enroll(token, folder / name, force=True)


def _responder(cluster: ClusterWorld) -> Responder | None:
    """Start a responder; a cluster that has just come up has no leader yet."""
    try:
        return cluster.responder(replicas=3)
    except lightlink.LightLinkError:
        return None
