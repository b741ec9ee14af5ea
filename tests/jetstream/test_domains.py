"""JetStream that is elsewhere: in another domain behind a leaf node, or in another account (ADR-19, ADR-8)."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandManager
from lightlink.errors import InvalidOption, LightLinkError, NotStored, StateNotFound, StreamNotFound
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError

if TYPE_CHECKING:
    from conftest import StartServer

    from lightlink.server import EmbeddedServer

_HUB = "leafnodes { listen: '127.0.0.1:-1' }, jetstream: { domain: hub }, server_name: hub"


@attrs.frozen
class Edge:
    """A hub and a leaf node of it, each with a JetStream domain of its own."""

    hub: EmbeddedServer
    leaf: EmbeddedServer


def _listens_for_leaves(server: EmbeddedServer) -> str:
    found = re.search(r"Listening for leafnode connections on (\S+)", server.log_file.read_text())
    assert found is not None
    return found[1]


@pytest.fixture
def edge(fresh_server: StartServer) -> Edge:
    hub = fresh_server(config=_HUB)
    remote = f"nats-leaf://{_listens_for_leaves(hub)}"
    config = f"leafnodes {{ remotes: [{{ url: '{remote}' }}] }}, jetstream: {{ domain: leaf }}, server_name: leaf"
    leaf = fresh_server(config=config)
    with lightlink.connect(leaf.url, jetstream_domain="hub") as client:
        eventually(lambda: _is_reached(client))
    return Edge(hub, leaf)


def _is_reached(client: lightlink.Client) -> bool:
    """Tell whether the leaf knows by now who listens behind it."""
    try:
        return api.stream_info(client._connection, "nothing", 5) is None
    except JetStreamError:
        return False


def test_state_is_kept_in_the_named_domain_not_the_nearest(edge: Edge) -> None:
    with (
        lightlink.connect(edge.leaf.url, jetstream_domain="hub") as client,
        lightlink.connect(edge.leaf.url) as near,
        lightlink.connect(edge.hub.url) as far,
    ):
        revision = client.set_state("device.a", 1)
        seen: list[object] = []
        watch = client.watch_state("device.*", lambda entry: seen.append(entry.value))
        client.update_state("device.a", 2, revision=revision)
        eventually(lambda: seen[-1:] == [2])
        watch.stop()
        assert client.get_state("device.a") == far.get_state("device.a") == 2
        assert client.state().keys() == ["device.a"]
        with pytest.raises(StateNotFound):
            near.get_state("device.a")
        near.set_state("device.a", "near")
        assert client.get_state("device.a") == 2
        client.set_state("device.b", 3)
        assert near.get_state("device.b", default=None) is None


def test_files_are_kept_in_the_domain_that_is_named(edge: Edge) -> None:
    with (
        lightlink.connect(edge.leaf.url, jetstream_domain="hub") as client,
        lightlink.connect(edge.hub.url) as far,
    ):
        content = b"x" * 300_000
        info = client.upload(io.BytesIO(content), name="data.bin")
        for each in (client, far):
            copy = io.BytesIO()
            each.download(info.id, copy)
            assert copy.getvalue() == content
        client.delete_file(info.id)
        assert far.files() == []


def test_commands_are_kept_in_the_domain_that_is_named(edge: Edge) -> None:
    agent = Agent("press", edge.leaf.url, jetstream_domain="hub", name="agent")

    @agent.command("double")
    def double(n: int) -> int:
        return 2 * n

    with lightlink.connect(edge.leaf.url, jetstream_domain="hub") as client, CommandManager(client) as manager:
        agent.start()
        try:
            assert manager.send("press", "double", {"n": 21}).result(timeout=30) == 42
            assert [each.client_id for each in manager.clients()] == ["press"]
        finally:
            agent.stop()
    with lightlink.connect(edge.hub.url) as far, CommandManager(far) as at_the_hub:
        assert len(at_the_hub.list("press")) == 1


def test_events_are_stored_and_handled_in_the_domain_named(edge: Edge) -> None:
    with (
        lightlink.connect(edge.leaf.url, jetstream_domain="hub") as client,
        lightlink.connect(edge.leaf.url) as near,
        lightlink.connect(edge.hub.url) as far,
    ):
        client.stream("ORDERS", ["orders.>"])
        # The leaf knows a moment later who listens behind it.
        eventually(lambda: _is_stored(client))
        seen: list[object] = []
        client.consume("orders.>", name="billing")(seen.append)
        client.publish_stored("orders.new", 2)
        eventually(lambda: seen == [1, 2])
        assert [each.data for each in client.replay("orders.>")] == [each.data for each in far.replay("orders.>")]
        with pytest.raises(StreamNotFound):
            near.stream("ORDERS").info()
        client.consume("orders.>", name="broken", retries=[])(_fail)
        eventually(lambda: len(far.dead_letters("ORDERS", "broken").list()) == 2)
        with client.lock("nightly"):
            assert far.lock("nightly").holder() is not None
            assert near.lock("nightly").holder() is None


def _is_stored(client: lightlink.Client) -> bool:
    try:
        return client.publish_stored("orders.new", 1, id="1").sequence == 1
    except NotStored:
        return False


def _fail(_: object) -> None:
    raise ValueError("broken")


def test_an_acknowledgement_of_another_domain_is_none(edge: Edge) -> None:
    config = {"name": "orders", "subjects": ["orders.>"]}
    with lightlink.connect(edge.leaf.url) as near, lightlink.connect(edge.leaf.url, jetstream_domain="hub") as client:
        api.create_stream(near._connection, config, 5)
        with pytest.raises(JetStreamError, match="domain 'leaf'"):
            api.publish(client._connection, "orders", b"orders.new", b"", 5)


def test_a_missing_domain_is_named_at_once(url: str) -> None:
    with lightlink.connect(url, jetstream_domain="nowhere") as client:
        with pytest.raises(LightLinkError, match=r"JetStream"):
            client.set_state("a", 1, timeout=30)
        with pytest.raises(LightLinkError, match=r"JetStream"):
            client.upload(io.BytesIO(b"x"), name="a", stall_timeout=30)


# One account imports the JetStream of another, below a prefix.
_IMPORT = """
jetstream: enabled
accounts {
  STORE: { jetstream: enabled, users: [{user: store, password: p}], exports: [
    {service: "$JS.API.>", response: stream}, {service: "$KV.>"}, {service: "$JS.ACK.>"}, {service: "$JS.FC.>"}
  ]},
  APP: { users: [{user: app, password: p}], imports: [
    {service: {account: STORE, subject: "$JS.API.>"}, to: "JS.store.>"},
    {service: {account: STORE, subject: "$KV.>"}, to: "JS.store.$KV.>"}
  ]}
}
"""


def test_anothers_state_is_reached_below_its_prefix(fresh_server: StartServer) -> None:
    server = fresh_server(config=_IMPORT)
    settings: dict[str, Any] = {"user": "app", "password": "p", "jetstream_prefix": "JS.store"}
    with (
        lightlink.connect(server.url, **settings) as client,
        lightlink.connect(server.url, user="store", password="p") as owner,
    ):
        revision = client.set_state("a", 1)
        client.update_state("a", 2, revision=revision)
        assert client.get_state("a") == owner.get_state("a") == 2


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"jetstream_domain": "a.b"}, "jetstream_domain"),
        ({"jetstream_domain": "*"}, "jetstream_domain"),
        ({"jetstream_domain": ""}, "jetstream_domain"),
        ({"jetstream_prefix": "JS.>"}, "jetstream_prefix"),
        ({"jetstream_domain": "hub", "jetstream_prefix": "JS.hub"}, "choose one"),
    ],
)
def test_a_domain_or_prefix_that_is_none_is_refused_by_name(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidOption, match=match):
        lightlink.connect("nats://127.0.0.1:1", **settings)
