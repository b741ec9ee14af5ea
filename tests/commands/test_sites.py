"""Sites behind leaf nodes: what goes on while the line to the hub is down, and what comes when it is back."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import attrs
import pytest
from helpers.commands import FAST, World
from helpers.waiting import eventually

from lightlink.commands import CommandManager
from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from helpers.proxy import TcpProxy

    import lightlink
    from lightlink.server import EmbeddedServer

# Each site has an account of its own at the hub, so that no site's streams take what is meant for another's.
_HUB = """
server_name: hub
jetstream: { domain: hub }
leafnodes { listen: '127.0.0.1:-1' }
accounts { BERLIN: { jetstream: enabled, users: [{ user: berlin, password: secret }] } }
"""
_SITE = """
server_name: berlin
%s
leafnodes { remotes: [{ url: 'nats-leaf://berlin:secret@127.0.0.1:%d' }], reconnect: 1 }
"""
_LOGIN = {"user": "berlin", "password": "secret"}


@attrs.frozen
class Site:
    """A hub, the server of one site, and the line between them."""

    hub: World
    here: World
    line: TcpProxy
    server: EmbeddedServer

    def cut(self) -> None:
        """Take the line down, and wait until the site has noticed."""
        self.line.refuse()
        self.line.cut()
        eventually(lambda: "Leafnode connection closed" in self.server.log_file.read_text())

    def mend(self) -> None:
        """Bring the line back."""
        self.line.accept()


def _site(fresh_server: StartServer, proxy: StartProxy, jetstream: str) -> Iterator[Site]:
    hub = fresh_server(config=_HUB)
    found = re.search(r"Listening for leafnode connections on \S+:(\d+)", hub.log_file.read_text())
    assert found is not None
    line = proxy(f"nats://127.0.0.1:{found[1]}")
    server = fresh_server(config=_SITE % (jetstream, line.port))
    with World(hub.url, FAST) as far, World(server.url, FAST) as here:
        yield Site(far, here, line, server)


@pytest.fixture
def outpost(fresh_server: StartServer, proxy: StartProxy) -> Iterator[Site]:
    """A site that stores nothing: its agents work with the streams of the hub."""
    yield from _site(fresh_server, proxy, "")


@pytest.fixture
def branch(fresh_server: StartServer, proxy: StartProxy) -> Iterator[Site]:
    """A site with streams of its own, in the domain berlin."""
    yield from _site(fresh_server, proxy, "jetstream: { domain: berlin }")


def _manager(world: World, **options: object) -> CommandManager:
    client: lightlink.Client = world.client(timeout=5.0, **options)
    return eventually(lambda: _try_to_open(world, client))


def _try_to_open(world: World, client: lightlink.Client) -> CommandManager | None:
    try:
        return CommandManager(client, store=world.options)
    except LightLinkError:  # the leaf does not know yet who listens behind it
        return None


def test_what_is_sent_to_a_site_cut_off_waits_and_comes_back(outpost: Site) -> None:
    manager = _manager(outpost.hub, **_LOGIN)
    agent = outpost.here.agent("press", jetstream_domain="hub", timeout=2.0)
    begun, go_on = threading.Event(), threading.Event()
    agent.register("slow", lambda: (begun.set(), go_on.wait(60))[1])
    agent.register("double", lambda x: 2 * x)
    agent.start()
    slow = manager.send("press", "slow", timeout=120)
    assert begun.wait(30)
    outpost.cut()
    waiting = manager.send("press", "double", {"x": 21}, timeout=120)
    go_on.set()
    assert waiting.command().status == "pending"
    outpost.mend()
    assert slow.result(60) is True
    assert waiting.result(60) == 42
    agent.stop()


def test_a_site_with_streams_of_its_own_goes_on_cut_off(branch: Site) -> None:
    there = _manager(branch.here)
    agent = branch.here.agent("press")
    agent.register("double", lambda x: 2 * x)
    agent.start()
    hub = _manager(branch.hub, jetstream_domain="berlin", **_LOGIN)
    assert hub.send("press", "double", {"x": 4}).result(30) == 8
    branch.cut()
    local = [there.send("press", "double", {"x": number}) for number in range(5)]
    assert [promise.result(30) for promise in local] == [0, 2, 4, 6, 8]
    branch.mend()
    seen = eventually(lambda: _ended(hub))
    assert {promise.command_id for promise in local} < set(seen)
    assert hub.send("press", "double", {"x": 5}).result(30) == 10
    agent.stop()


def _ended(manager: CommandManager) -> list[str]:
    try:
        return [command.command_id for command in manager.list("press", "completed")]
    except LightLinkError:  # the line is not back yet
        return []
