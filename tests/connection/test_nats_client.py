from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import nats.errors
import pytest
from helpers.loop import LoopThread
from helpers.waiting import eventually
from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.command import hpub_cmd, pub_cmd

import lightlink
from lightlink.connection import nats_client
from lightlink.connection.nats_client import TLSRequired, WireClient, _denied_operation, publish_frame
from lightlink.errors import InvalidName
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from helpers.raw import RawPeer

    from lightlink.server import EmbeddedServer

Arrival = tuple[bytes, bytes, bytes, "bytes | None"]

DENY = """
authorization {
  users = [{user: a, password: a, permissions: {publish: ["Free.>", "_INBOX.>"], subscribe: ["Free.>", "_INBOX.>"]}}]
}
"""


class Wire:
    """A WireClient and the loop it lives on; connects when made."""

    def __init__(self, url: str, **options: Any) -> None:
        self.denied: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self.loop = LoopThread("wire")
        self.nc = WireClient(require_tls=options.pop("require_tls", False), on_denied=self._note_denied)
        settings = {"error_cb": self._note_error, "allow_reconnect": False, "connect_timeout": 30, **options}
        try:
            self.run(self.nc.connect(url, **settings))
        except BaseException:
            self.stop()
            raise

    def run(self, coroutine: Any, timeout: float = 30.0) -> Any:
        return self.loop.run(coroutine, timeout)

    def arrivals(self, subject: str, queue: str = "") -> tuple[Any, list[Arrival]]:
        found: list[Arrival] = []
        subscription = self.run(self.nc.route(subject, queue, lambda *arrival: found.append(arrival)))
        self.run(self.nc.flush())
        return subscription, found

    def stop(self) -> None:
        self.run(self.nc.discard())
        self.loop.stop()

    def _note_denied(self, operation: str, subject: str) -> None:
        self.denied.append((operation, subject))

    async def _note_error(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.fixture
def wire(url: str) -> Iterator[Wire]:
    connected = Wire(url)
    yield connected
    connected.stop()


tokens = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, blacklist_characters="\x7f"), min_size=1)


# Large ones are framed in another way.
payloads = st.builds(lambda piece, times: piece * times, st.binary(max_size=300), st.sampled_from((1, 100)))


@given(tokens, st.one_of(st.just(""), tokens), payloads)
def test_a_frame_equals_nats_pys_own_pub(subject: str, reply: str, payload: bytes) -> None:
    assert publish_frame(subject.encode(), reply.encode(), payload) == pub_cmd(subject, reply, payload)


@given(tokens, st.one_of(st.just(""), tokens), payloads, st.dictionaries(st.just("A"), tokens))
def test_a_frame_with_headers_equals_nats_pys_own_hpub(
    subject: str, reply: str, payload: bytes, headers: dict[str, str]
) -> None:
    block = codec.encode_headers(headers)
    assert publish_frame(subject.encode(), reply.encode(), payload, block) == hpub_cmd(subject, reply, block, payload)


def test_a_routed_subscription_delivers_messages_unchanged(wire: Wire, peer: RawPeer, prefix: str) -> None:
    _, found = wire.arrivals(f"{prefix}.*")
    peer.run(peer.nc.publish(f"{prefix}.a", b"1", reply="answer.here"))
    peer.run(peer.nc.publish(f"{prefix}.b", b"", headers={"X": "y"}))
    eventually(lambda: len(found) == 2)
    assert found == [
        (f"{prefix}.a".encode(), b"answer.here", b"1", None),
        (f"{prefix}.b".encode(), b"", b"", b"NATS/1.0\r\nX: y\r\n\r\n"),
    ]


def test_what_is_written_arrives_in_order_however_it_is_batched(wire: Wire, peer: RawPeer, prefix: str) -> None:
    async def collect() -> list[bytes]:
        return [(await subscription.next_msg(30)).data for _ in range(5)]

    subscription = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    frames = [publish_frame(prefix.encode(), b"", b"%d" % n) for n in range(5)]

    async def write() -> None:
        wire.nc.write(frames[:1])
        wire.nc.write(frames[1:])

    wire.run(write())
    assert peer.run(collect()) == [b"0", b"1", b"2", b"3", b"4"]


def test_an_exception_in_a_sink_is_logged(
    wire: Wire, peer: RawPeer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arrival: object) -> None:
        raise RuntimeError("a bug in a sink")

    wire.run(wire.nc.route(f"{prefix}.bad", "", fail))
    _, found = wire.arrivals(f"{prefix}.good")
    with caplog.at_level(logging.ERROR, "lightlink"):
        peer.run(peer.nc.publish(f"{prefix}.bad", b""))
        peer.run(peer.nc.publish(f"{prefix}.good", b"1"))
        eventually(lambda: found)
    assert "a bug in a sink" in caplog.text


def test_an_unrouted_subscription_ends_but_once(wire: Wire, peer: RawPeer, prefix: str) -> None:
    subscription, found = wire.arrivals(prefix)
    wire.run(wire.nc.unroute(subscription))
    wire.run(wire.nc.unroute(subscription))
    wire.run(wire.nc.stop_route(subscription))
    wire.run(wire.nc.flush())
    peer.run(peer.nc.publish(prefix, b"late"))
    peer.run(peer.nc.flush())
    wire.run(wire.nc.flush())
    assert found == []


def test_stopping_a_route_returns_when_all_is_delivered(wire: Wire, peer: RawPeer, prefix: str) -> None:
    subscription, found = wire.arrivals(prefix)
    for _ in range(100):
        peer.run(peer.nc.publish(prefix, b"x"))
    peer.run(peer.nc.flush())
    wire.run(wire.nc.stop_route(subscription))
    assert len(found) == 100


def test_ending_a_route_of_a_closed_connection_raises_nothing(wire: Wire, prefix: str) -> None:
    subscription, _ = wire.arrivals(prefix)
    wire.run(wire.nc.close())
    wire.run(wire.nc.stop_route(subscription))
    wire.run(wire.nc.unroute(subscription))


def test_the_server_knows_a_subscription_before_the_flush_ends(
    fresh_server: StartServer,
) -> None:
    server = fresh_server(extra_args=["-DV"])
    wire = Wire(server.url)

    async def subscribe_and_flush() -> None:
        await wire.nc.route("first.sub", "", lambda *arrival: None)
        await wire.nc.flush()

    wire.run(subscribe_and_flush())
    wire.stop()
    commands = [line.partition("<<- [")[2] for line in server.log_file.read_text().splitlines() if "<<- [" in line]
    subscribed = next(n for n, command in enumerate(commands) if command.startswith("SUB first.sub"))
    assert commands[subscribed + 1].startswith("PING"), commands


def test_a_refused_publish_is_told_with_its_subject(fresh_server: StartServer) -> None:
    wire = Wire(fresh_server(config=DENY).url, user="a", password="a")

    async def publish() -> None:
        wire.nc.write([publish_frame(b"Secret.Plans", b"", b""), publish_frame(b'Odd"Name\\x', b"", b"")])
        await wire.nc.flush()

    wire.run(publish())
    assert wire.denied == [("publish", "Secret.Plans"), ("publish", 'Odd"Name\\x')]
    assert wire.nc.is_connected
    wire.stop()


def test_a_refused_subscription_is_told_with_its_subject(fresh_server: StartServer) -> None:
    wire = Wire(fresh_server(config=DENY).url, user="a", password="a")
    wire.arrivals("Secret.*", queue="Team")
    assert wire.denied == [("subscribe", "Secret.*")]
    assert wire.nc.is_connected
    wire.stop()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("'Permissions Violation for Publish to \"A.b\"'", ("publish", "A.b")),
        ('\'Permissions Violation for Subscription to "A.b" using queue "Q"\'', ("subscribe", "A.b")),
        ("'permissions violation for publish to a.b'", ("publish", "")),
        ("'Authorization Violation'", None),
    ],
)
def test_a_permissions_violation_is_read_from_its_text(message: str, expected: tuple[str, str] | None) -> None:
    assert _denied_operation(message) == expected


def test_too_many_subscriptions_do_not_cost_the_connection(fresh_server: StartServer) -> None:
    server = fresh_server(config="max_subscriptions: 2")
    wire = Wire(server.url, allow_reconnect=True)
    for n in range(3):
        wire.arrivals(f"s.{n}")
    assert [str(error) for error in wire.errors] == ["nats: 'maximum subscriptions exceeded'"]
    assert wire.nc.stats["reconnects"] == 0
    wire.stop()


def test_a_pong_after_its_flush_was_given_up_does_no_harm(proxy: StartProxy, peer: RawPeer, prefix: str) -> None:
    slow = proxy()
    wire = Wire(slow.url)
    _, found = wire.arrivals(prefix)
    slow.pause()
    with pytest.raises(nats.errors.FlushTimeoutError):
        wire.run(wire.nc.flush(0.05))
    slow.resume()
    wire.run(wire.nc.flush())
    peer.run(peer.nc.publish(prefix, b"x"))
    eventually(lambda: found)
    wire.stop()


def test_a_flush_is_not_confirmed_by_a_lost_connection(url: str) -> None:
    wire = Wire(url, allow_reconnect=True)

    async def flush_while_reconnecting() -> None:
        await wire.nc._process_op_err(nats.errors.StaleConnectionError())
        await wire.nc.flush()

    with pytest.raises(nats.errors.StaleConnectionError):
        wire.run(flush_while_reconnecting())
    wire.stop()


def test_what_is_said_to_a_connection_just_ended_is_no_mistake(url: str) -> None:
    """With uvloop it was, and ended for good whatever reads a stream, say a watch."""
    pytest.importorskip("uvloop")
    with lightlink.connect(url) as client:
        nc = client._connection.session.nc

        async def speak() -> None:
            assert nc._flusher_task is not None
            assert nc._reading_task is not None
            nc._flusher_task.cancel()  # it ends of the same mistake, a moment before
            reading, nc._reading_task = nc._reading_task, None  # which would notice the end
            reading.cancel()
            await asyncio.gather(nc._flusher_task, reading, return_exceptions=True)
            nc._abort_transport()
            with contextlib.suppress(OSError):
                await nc._transport.wait_closed()  # type: ignore[union-attr]
            await nc.publish("any", b"")
            await nc._process_op_err(nats.errors.StaleConnectionError())

        client._connection.run(speak)


def test_a_read_loop_that_dies_makes_the_client_reconnect(
    url: str, peer: RawPeer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire(url, allow_reconnect=True, reconnect_time_wait=0.01)
    _, found = wire.arrivals(prefix)
    original = wire.nc._process_pong

    async def surprise() -> None:
        wire.nc._process_pong = original  # type: ignore[method-assign]
        raise RuntimeError("a bug in nats-py")

    wire.nc._process_pong = surprise  # type: ignore[method-assign]
    with pytest.raises(nats.errors.Error):
        wire.run(wire.nc.flush(0.5))
    eventually(lambda: wire.nc.is_connected and wire.nc.stats["reconnects"] == 1)
    wire.run(wire.nc.flush())
    peer.run(peer.nc.publish(prefix, b"x"))
    eventually(lambda: found)
    wire.stop()


def test_reconnecting_goes_on_after_an_unexpected_error(url: str) -> None:
    wire = Wire(url, allow_reconnect=True, reconnect_time_wait=0.01, max_reconnect_attempts=-1)
    original = wire.nc._process_connect_init
    surprises = iter([RuntimeError("a surprise"), KeyError("another")])

    async def fail_twice() -> None:
        error = next(surprises, None)
        if error is not None:
            raise error
        await original()

    wire.nc._process_connect_init = fail_twice  # type: ignore[method-assign]
    wire.run(wire.nc.force_reconnect())
    eventually(lambda: wire.nc.stats["reconnects"] == 1)
    wire.run(wire.nc.flush())
    wire.stop()


def test_a_server_without_tls_is_refused_before_a_credential(fresh_server: StartServer) -> None:
    server = fresh_server(extra_args=["-DV"])
    with pytest.raises(TLSRequired):
        Wire(server.url, require_tls=True, user="me", password="hush")
    assert "CONNECT {" not in server.log_file.read_text()


def test_it_is_writable_only_while_nothing_tells_of_the_end(fresh_server: StartServer) -> None:
    server = fresh_server()
    wire = Wire(server.url)
    assert wire.nc.is_writable
    server.kill()
    eventually(lambda: not wire.nc.is_writable)
    wire.stop()


def test_congestion_shows_while_the_other_end_does_not_read(proxy: StartProxy, prefix: str) -> None:
    slow = proxy()
    wire = Wire(slow.url)
    slow.pause()
    frame = publish_frame(prefix.encode(), b"", bytes(512 * 1024))

    async def fill() -> None:
        while not wire.nc.is_congested:
            wire.nc.write([frame])

    async def drained() -> bool:
        await wire.nc.wait_decongested()
        return not wire.nc.is_congested

    wire.run(fill())
    waiting = asyncio.run_coroutine_threadsafe(drained(), wire.loop.loop)
    slow.resume()
    assert waiting.result(30)
    wire.stop()


def test_the_private_parts_of_nats_py_that_are_used_are_there(server: EmbeddedServer) -> None:
    """Each is watched by a behaviour above too; this names the one that is gone after an update of nats-py."""
    wire = Wire(server.url)
    nc = wire.nc
    names = "_server_pool _parse_server_uri _sid _subs _transport _ps _pending _pending_data_size _pongs"
    names += " _reading_task _max_payload _error_cb options"
    assert [name for name in names.split() if not hasattr(nc, name)] == []
    assert hasattr(nc._transport._io_writer, "transport")  # type: ignore[union-attr]
    assert isinstance(nc._ps.buf, bytearray)
    assert nc._max_payload == nc.max_payload == 1048576
    hooks = "_process_msg _process_info _process_err _process_pong _send_ping _read_loop _attempt_reconnect _close"
    for name in (*hooks.split(), "_flush_pending", "_process_op_err", "_process_connect_init", "flush"):
        assert asyncio.iscoroutinefunction(getattr(nc, name)), name
    assert {"tls", "allow_reconnect", "max_reconnect_attempts", "connect_timeout", "reconnect_time_wait"} <= {
        "tls",
        *nc.options,
    }
    wire.stop()


# The second wall ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [*range(0x21), 0x7F])
def test_no_byte_that_ends_a_word_is_framed(byte: int) -> None:
    name = b"a" + bytes([byte]) + b"b"
    for subject, reply in ((name, b""), (b"fine", name), (bytes([byte]), b""), (b"fine" + bytes([byte]), b"")):
        with pytest.raises(InvalidName):
            publish_frame(subject, reply, b"x")


def test_an_empty_subject_is_not_framed() -> None:
    with pytest.raises(InvalidName):
        publish_frame(b"", b"", b"x")


def test_subjects_looked_at_are_kept_in_bounds() -> None:
    for number in range(10_000):
        assert publish_frame(b"s.%d" % number, b"", b"") == b"PUB s.%d  0\r\n\r\n" % number
    assert len(nats_client._SAFE) <= nats_client._SAFE_KEPT


@pytest.mark.parametrize(
    ("subject", "queue"), [("a b", ""), ("a\r\nPUB x 0\r\n\r\n", ""), ("a", "q\r\nPING"), ("a", "b c")]
)
def test_no_subscription_breaks_its_line(wire: Wire, subject: str, queue: str) -> None:
    with pytest.raises(InvalidName):
        wire.run(wire.nc.route(subject, queue, lambda *_: None))
