"""Requests in flight: answered in order, and never sent on another connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from helpers.raw import RawPeer
from helpers.waiting import eventually

import lightlink
from lightlink.connection.pipeline import Broken, Pipeline
from lightlink.errors import ClosedError, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from nats.aio.msg import Msg


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def soon() -> float:
    return time.monotonic() + 30


def listen(peer: RawPeer, subject: str) -> list[bytes]:
    """Answer each message with its own payload, and return what comes."""
    heard: list[bytes] = []

    async def answer(message: Msg) -> None:
        heard.append(message.data[:10])
        if message.reply:
            await message.respond(message.data[:10])

    async def subscribe() -> None:
        await peer.nc.subscribe(subject, cb=answer)
        for _ in range(2):  # the first PING of nats-py may overtake the SUB
            await peer.nc.flush()

    peer.run(subscribe())
    return heard


def test_replies_come_in_the_order_of_the_requests(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    listen(peer, prefix)
    pipeline = Pipeline(client._connection)
    for number in range(100):
        pipeline.send(prefix.encode(), b"%d" % number, 5)
    assert [pipeline.next(soon()).data for _ in range(100)] == [b"%d" % number for number in range(100)]
    pipeline.close()
    assert len(client._connection.session.replies) == 0


def test_a_reply_out_of_order_breaks_it(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    async def answer_the_second(message: Msg) -> None:
        if message.data == b"second":
            await message.respond(b"")

    async def subscribe() -> None:
        await peer.nc.subscribe(prefix, cb=answer_the_second)
        await peer.nc.flush()

    peer.run(subscribe())
    pipeline = Pipeline(client._connection)
    pipeline.send(prefix.encode(), b"first", 5)
    pipeline.send(prefix.encode(), b"second", 5)
    with pytest.raises(Broken):
        pipeline.next(soon())
    pipeline.close()
    assert len(client._connection.session.replies) == 0


def test_no_reply_in_time_is_a_timeout(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    pipeline = Pipeline(client._connection)
    pipeline.send(prefix.encode(), b"", 5)
    with pytest.raises(TimeoutError):
        pipeline.next(time.monotonic() + 0.01)
    pipeline.close()


def test_the_loss_of_the_connection_breaks_it(proxy: StartProxy, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    link = proxy()
    with lightlink.connect(link.url) as client:
        pipeline = Pipeline(client._connection)
        pipeline.send(prefix.encode(), b"", 5)
        client.flush()
        link.cut()
        with pytest.raises(Broken):
            pipeline.next(soon())
        with pytest.raises(Broken):
            pipeline.send(prefix.encode(), b"", 5)
        pipeline.close()


def test_what_waited_for_a_lost_connection_is_never_sent(proxy: StartProxy, peer: RawPeer, prefix: str) -> None:
    heard = listen(peer, prefix)
    link = proxy()
    with lightlink.connect(link.url) as client:
        pipeline = Pipeline(client._connection)
        link.pause()
        for _ in range(40):  # more than the sockets on the way hold
            pipeline.send(prefix.encode(), bytes(1024 * 1024), 5)
        eventually(lambda: len(client._connection.session.outbox))
        link.cut()
        link.resume()
        with pytest.raises(Broken):
            pipeline.next(soon())
        assert client.wait_connected(30)
        client.publish(prefix, b"afterwards")
        client.flush(30)
        pipeline.close()
    eventually(lambda: b"afterwards" in heard)
    assert heard == [b"afterwards"]


def test_what_was_withdrawn_is_never_sent(proxy: StartProxy, peer: RawPeer, prefix: str) -> None:
    heard = listen(peer, prefix)
    link = proxy()
    with lightlink.connect(link.url) as client:
        pipeline = Pipeline(client._connection)
        link.refuse()
        link.cut()
        eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        pipeline.close()
        pipeline = Pipeline(client._connection)
        pipeline.send(prefix.encode(), b"withdrawn", 5)
        pipeline.close()
        link.accept()
        assert client.wait_connected(30)
        client.publish(prefix, b"afterwards")
        client.flush(30)
    eventually(lambda: b"afterwards" in heard)
    assert heard == [b"afterwards"]


def test_closing_the_client_ends_the_wait(url: str, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    client = lightlink.connect(url)
    pipeline = Pipeline(client._connection)
    pipeline.send(prefix.encode(), b"", 5)
    client.close()
    with pytest.raises(ClosedError):
        pipeline.next(soon())
    pipeline.close()


def test_a_request_that_is_not_permitted_says_so(fresh_server: StartServer, prefix: str) -> None:
    config = 'authorization { users: [{user: u, password: p, permissions: {publish: {deny: "secret"}}}] }'
    server = fresh_server(config=config)
    with lightlink.connect(server.url, user="u", password="p") as client:
        pipeline = Pipeline(client._connection)
        pipeline.send(b"secret", b"", 5)
        with pytest.raises(PermissionDenied):
            pipeline.next(soon())
        pipeline.close()
