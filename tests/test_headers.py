"""Headers on every path: what is given when something is sent reaches the handler, all values of a name included."""

from __future__ import annotations

import io
import queue
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink.errors import InvalidName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.commands import World
    from helpers.raw import RawPeer

    from lightlink.commands import CommandManager

GIVEN = {"Tenant": "acme", "Via": ["a", "b"]}
SEEN: tuple[Any, ...] = ("acme", "b", ["a", "b"], ["acme"], [])


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def look(carrier: Any) -> tuple[Any, ...]:
    values = carrier.header_values
    return carrier.headers["Tenant"], carrier.headers["Via"], values("Via"), values("Tenant"), values("Absent")


def test_a_handler_of_calls_sees_all_values_of_a_name(client: lightlink.Client, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("look", _look_at_request)

    with service:
        seen = [
            client.call(prefix, "look", headers=GIVEN),
            client.submit(prefix, "look", headers=GIVEN).result(30),
            client.service(prefix, headers=GIVEN).look(),
            *client.map(prefix, "look", [None], headers=GIVEN),
        ]

    assert seen == [list(SEEN)] * 4


def _look_at_request(request: lightlink.Request) -> tuple[Any, ...]:
    return look(request)


def test_a_handler_of_events_sees_all_values_of_a_name(client: lightlink.Client, prefix: str) -> None:
    seen: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    @client.on(prefix)
    def on_event(message: lightlink.Message) -> None:
        seen.put(look(message))

    client.publish(prefix, 1, headers=GIVEN)
    assert seen.get(timeout=30) == SEEN


def test_repeated_headers_are_what_nats_py_sends_and_reads(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    subscription = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    client.publish(prefix, 1, headers=GIVEN)
    # nats-py keeps one value of a name; which one is its business.
    headers = peer.run(subscription.next_msg(30)).headers
    assert headers
    assert set(headers) == {"Tenant", "Via"}
    assert headers["Via"] in ("a", "b")


def test_a_message_made_by_hand_has_the_values_it_was_given() -> None:
    message = lightlink.Message("a", 1, {"Tenant": "acme"})
    assert message.header_values("Tenant") == ["acme"]
    assert message.header_values("Via") == []


def test_headers_of_a_file_reach_the_handler_with_it(client: lightlink.Client, url: str, prefix: str) -> None:
    seen: queue.SimpleQueue[lightlink.FileInfo] = queue.SimpleQueue()
    service = lightlink.Service(prefix, url)
    service.on_file(seen.put)

    with service:
        client.send_file(io.BytesIO(b"content"), prefix, name="a.txt", headers=GIVEN)
        info = seen.get(timeout=30)

    assert (info.name, info.headers["Tenant"], info.headers["Via"]) == ("a.txt", "acme", "b")


def test_headers_that_cannot_be_sent_upload_no_file(client: lightlink.Client, prefix: str) -> None:
    with pytest.raises(InvalidName, match="header value"):
        client.send_file(io.BytesIO(b"content"), prefix, name=f"{prefix}.txt", headers={"Tenant": "two\nlines"})
    assert prefix not in {info.name.removesuffix(".txt") for info in client.files()}


def test_headers_of_a_command_are_stored_and_reach_the_handler(
    world: World, manager: CommandManager, prefix: str
) -> None:
    # Sent before the agent is there: what it sees has been stored.
    promise = manager.send(prefix, "look", headers=GIVEN)
    batch = manager.send_many([prefix], "look", headers=GIVEN)
    plain = manager.send(prefix, "plain")
    agent = world.agent(prefix)

    @agent.command("look")
    def look_at(context: lightlink.CommandContext) -> tuple[Any, ...]:
        return look(context)

    @agent.command("plain")
    def plain_one(context: lightlink.CommandContext) -> dict[str, str]:
        return context.headers

    with agent:
        assert promise.result(30) == list(SEEN)
        assert [command.result for command in batch] == [list(SEEN)]
        assert plain.result(30) == {}

    with pytest.raises(InvalidName, match="header name"):
        manager.send(prefix, "look", headers={"no name": "x"})
