"""nats-py and the ``nats`` command read and write the same streams."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from helpers.raw import RawPeer
from helpers.waiting import eventually
from nats.js.api import ConsumerConfig, DeliverPolicy

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient

    import lightlink

pytestmark = pytest.mark.interop


def test_nats_py_and_lightlink_read_each_others_events(client: lightlink.Client) -> None:
    seen: list[Any] = []
    client.publish_stored("orders.new", {"from": "us"}, id="1")

    async def use(nc: NatsClient) -> Any:
        js = nc.jetstream()
        subscription = await js.pull_subscribe("orders.>", durable="theirs", stream="ORDERS")
        (message,) = await subscription.fetch(1, timeout=30)
        await message.ack_sync()
        ack = await js.publish("orders.new", b'{"from": "them"}', headers={"Nats-Msg-Id": "orders.new|2"})
        return message.data, dict(message.headers or {}), ack.seq

    with RawPeer(client.server or "") as peer:
        data, headers, sequence = peer.run(use)
    assert (data, headers["Nats-Msg-Id"], sequence) == (b'{"from":"us"}', "orders.new|1", 2)
    client.consume("orders.>", name="ours")(seen.append)
    eventually(lambda: seen == [{"from": "us"}, {"from": "them"}])
    assert client.publish_stored("orders.new", {"from": "us"}, id="2").duplicate
    # A consumer that nats-py created is fetched from by LightLink.
    with client.consumer("ORDERS", "theirs") as consumer:
        (message,) = consumer.fetch(1)
        assert message.data == {"from": "them"}
        message.done()


def test_a_consumer_that_would_break_retries_is_refused(client: lightlink.Client) -> None:
    async def make(nc: NatsClient) -> None:
        config = ConsumerConfig(durable_name="odd", filter_subject="orders.>", max_deliver=3, backoff=[1.0, 2.0])
        await nc.jetstream().add_consumer("ORDERS", config)

    with RawPeer(client.server or "") as peer:
        peer.run(make)
    with pytest.raises(Exception, match=r"max_deliver is 3, not -1.*backoff"):
        client.consume("orders.>", name="odd")(print)


def test_harmless_differences_of_a_consumer_are_logged(
    client: lightlink.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def make(nc: NatsClient) -> None:
        config = ConsumerConfig(
            durable_name="odd",
            filter_subject="orders.>",
            deliver_policy=DeliverPolicy.NEW,
            ack_wait=2.0,
            max_ack_pending=5,
        )
        await nc.jetstream().add_consumer("ORDERS", config)

    with RawPeer(client.server or "") as peer:
        peer.run(make)
    seen: list[Any] = []
    client.consume("orders.>", name="odd")(seen.append)
    (line,) = (each.getMessage() for each in caplog.records if "ORDERS/odd" in each.getMessage())
    for difference in (
        "ack_wait is 2 s, not 30 s",
        "max_ack_pending is 5, not 10000",
        "deliver_policy is new, not all",
    ):
        assert difference in line
    client.publish_stored("orders.new", 1)
    eventually(lambda: seen == [1])
    caplog.clear()
    client.consume("orders.>", name="odd", update=True)(seen.append)
    client.consume("orders.>", name="odd", since="new")(seen.append)
    assert not caplog.records


def test_update_changes_a_consumer_that_another_tool_made(client: lightlink.Client) -> None:
    async def make(nc: NatsClient) -> None:
        config = ConsumerConfig(durable_name="odd", filter_subject="orders.a", max_deliver=3, backoff=[1.0, 2.0])
        await nc.jetstream().add_consumer("ORDERS", config)

    with RawPeer(client.server or "") as peer:
        peer.run(make)
    seen: list[Any] = []
    client.consume("orders.b", name="odd", update=True)(seen.append)
    client.publish_stored("orders.b", 1)
    eventually(lambda: seen == [1])
    client.consume("orders.b", name="odd")(seen.append)  # without update: no difference is left


@pytest.mark.skipif(shutil.which("nats") is None, reason="the nats command is not installed; see CONTRIBUTING.md")
def test_the_nats_command_sees_streams_and_dead_letters(client: lightlink.Client) -> None:
    def run(*arguments: str) -> str:
        command = ["nats", "-s", client.server or "", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    seen: list[Any] = []
    client.consume("orders.>", name="billing")(seen.append)
    run("pub", "--jetstream", "orders.new", '{"from": "nats"}')
    eventually(lambda: seen == [{"from": "nats"}])
    info = json.loads(run("consumer", "info", "ORDERS", "billing", "--json"))
    assert info["config"]["filter_subject"] == "orders.>"
    assert json.loads(run("stream", "info", "ORDERS", "--json"))["state"]["messages"] == 1
