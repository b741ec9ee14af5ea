"""Callers write to the socket past the loop: whole frames, whatever interrupts them."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from helpers.edge import EdgeServer
from helpers.instants import interrupt_at
from helpers.loop import LoopThread
from helpers.pki import client_context, tls_of
from helpers.process import run_python
from helpers.raw import RawPeer
from helpers.waiting import eventually

import lightlink
from lightlink.connection.transports.tcp import TcpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nats.aio.client import Client as NatsClient
    from nats.aio.msg import Msg

    from lightlink.server import EmbeddedServer

# More than a socket takes at once here.
_LARGE = 60_000


class Wire:
    """A transport with small buffers, and all that came out of its other end, which is read slowly.

    With a directory of identities it speaks TLS.
    """

    def __init__(self, directory: Path | None) -> None:
        self.thread = LoopThread("wire")
        self.transport = TcpTransport()
        self.received = b""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            uri = urlsplit(f"nats://127.0.0.1:{listening.getsockname()[1]}")
            self.thread.run(self.transport.connect(uri, 1024, 10))
            self._far, _ = listening.accept()
        small = self.transport._io_writer.get_extra_info("socket")  # type: ignore[union-attr]
        small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._reader = threading.Thread(target=self._read, args=(directory,), daemon=True)
        self._reader.start()
        if directory is not None:
            context = client_context(directory, "ops")
            self.thread.run(self.transport.connect_tls("127.0.0.1", context, 1024, 30))

    def on_loop(self, data: bytes) -> None:
        """Write as nats-py does."""
        self.thread.loop.call_soon_threadsafe(self.transport.write, data)

    def end(self) -> bytes:
        """Close after what is written, and return all that came."""

        async def close() -> None:
            self.transport.close()

        self.thread.run(close())
        self._reader.join(30)
        assert not self._reader.is_alive()
        self.thread.stop()
        return self.received

    def _read(self, directory: Path | None) -> None:
        chance = random.Random(1)
        if directory is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(directory / "server.pem", directory / "server.key")
            self._far = context.wrap_socket(self._far, server_side=True)
        with self._far, contextlib.suppress(ConnectionError):
            while piece := self._far.recv(chance.choice((100, 5000, 50_000))):
                self.received += piece


@pytest.fixture(params=["plain", "tls"])
def make_wire(request: pytest.FixtureRequest, identities: Path) -> Callable[[], Wire]:
    return lambda: Wire(identities if request.param == "tls" else None)


@pytest.fixture
def wire(make_wire: Callable[[], Wire]) -> Iterator[Wire]:
    wire = make_wire()
    yield wire
    if wire._reader.is_alive():
        wire.end()


@pytest.fixture(scope="module")
def edge(identities: Path) -> Iterator[EmbeddedServer]:
    with EdgeServer(identities) as running:
        yield running


@pytest.fixture(params=["plain", "tls", "quic"])
def place(request: pytest.FixtureRequest, url: str, identities: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server; with TLS the environment names the files."""
    if request.param == "plain":
        return url
    if request.param == "quic":
        monkeypatch.setenv("LIGHTLINK_TLS_CA", str(identities / "ca.pem"))
        reached: EmbeddedServer = request.getfixturevalue("edge")
        return reached.url
    tls = tls_of(identities, "ops")
    for name, path in (("CA", tls.ca), ("CERT", tls.cert), ("KEY", tls.key)):
        monkeypatch.setenv(f"LIGHTLINK_TLS_{name}", str(path))
    secured: EmbeddedServer = request.getfixturevalue("secured")
    return secured.url


@pytest.fixture
def answerer(request: pytest.FixtureRequest, place: str, url: str) -> Iterator[RawPeer]:
    peer: RawPeer
    if place.startswith("quic"):
        context = ssl.create_default_context(cafile=request.getfixturevalue("identities") / "ca.pem")
        with RawPeer(f"tls://127.0.0.1:{request.getfixturevalue('edge').port}", tls=context) as peer:
            yield peer
        return
    yield request.getfixturevalue("peer") if place == url else request.getfixturevalue("connect_as")("ops")


def frame(name: str, size: int = 0) -> bytes:
    """Return something in which what does not belong to it would be seen."""
    return f"<{name}:".encode() + name[:1].encode() * size + b">"


def frames(received: bytes) -> list[bytes]:
    """Take apart what came; AssertionError when there is anything but whole frames."""
    found = [each + b">" for each in received.split(b">") if each]
    for each in found:
        name, _, filling = each[1:-1].partition(b":")
        assert each[:1] == b"<", each[:40]
        assert set(filling) <= {name[0]}, each[:40]
    return found


def test_a_caller_writes_its_request_while_the_loop_is_held_up(place: str, prefix: str, answerer: RawPeer) -> None:
    held, go_on = threading.Event(), threading.Event()
    came = threading.Event()

    async def serve(nc: NatsClient) -> None:
        async def answer(request: Msg) -> None:
            came.set()
            await request.respond(b'{"id":"%b","success":true}' % json.loads(request.data)["id"].encode())

        await nc.subscribe(f"$SRV.{prefix}.do", cb=answer)
        await nc.flush()

    def hold_up() -> None:
        held.set()
        go_on.wait(60)

    answerer.run(serve)
    with lightlink.connect(place) as client:
        assert client.call(prefix, "do") is None
        client._connection.session.loop.call_soon(hold_up)
        assert held.wait(30)
        call = threading.Thread(target=client.call, args=(prefix, "do"))
        came.clear()
        call.start()
        assert came.wait(30)
        go_on.set()
        call.join(30)
        assert not call.is_alive()


def test_frames_of_callers_and_of_the_loop_stay_whole(wire: Wire) -> None:
    written: dict[str, list[bytes]] = {name: [] for name in "abc"}

    def work(name: str) -> None:
        chance = random.Random(name)
        for number in range(150):
            data = frame(f"{name}{number}", chance.choice((0, 100, 3000, _LARGE // 4)))
            if not wire.transport.write_here(data):
                wire.on_loop(data)
            written[name].append(data)
            if number % 10 == 0:
                wire.on_loop(frame(f"x{name}{number}", 500))

    threads = [threading.Thread(target=work, args=(name,)) for name in written]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    received = frames(wire.end())
    for name, mine in written.items():
        assert sorted(each for each in received if each.startswith(b"<" + name.encode())) == sorted(mine)
    assert sum(each.startswith(b"<x") for each in received) == 45


def test_many_large_frames_are_written_whole_and_in_order(wire: Wire) -> None:
    many = [[frame(f"a{batch}.{number}", 1200) for number in range(count)] for batch, count in enumerate((60, 1100))]
    for batch in many:
        wire.thread.loop.call_soon_threadsafe(wire.transport.write_frames, batch)
    wire.on_loop(frame("b"))
    eventually(lambda: wire.received.endswith(b"<b:>"))
    assert frames(wire.end()) == [*(each for batch in many for each in batch), frame("b")]


def test_what_the_socket_does_not_take_is_written_first(wire: Wire) -> None:
    large = frame("a", 10 * _LARGE)
    assert wire.transport.write_here(large)
    assert not wire.transport.write_here(frame("b"))
    wire.on_loop(frame("c"))
    eventually(lambda: wire.received.endswith(b"<c:>"))
    assert frames(wire.end()) == [large, frame("c")]


@pytest.mark.parametrize("size", [0, 10 * _LARGE], ids=["all at once", "in pieces"])
def test_an_interrupt_at_any_instant_leaves_whole_frames(make_wire: Callable[[], Wire], size: int) -> None:
    for instant in range(1, 100):
        wire = make_wire()
        data, done = frame("a", size), False
        try:
            with interrupt_at(instant):
                wire.transport.write_here(data)
                done = True
        except KeyboardInterrupt:
            pass
        wire.on_loop(frame("b"))
        eventually(lambda wire=wire: wire.received.endswith(b"<b:>"))  # type: ignore[misc]
        assert frames(wire.end()) in ([data, frame("b")], *([] if done else [[frame("b")]]))
        if done:
            return
    raise AssertionError("it never ended")


def test_a_signal_handlers_error_is_not_taken_for_the_sockets(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    class Alarm(TimeoutError):
        pass

    class Transport:
        def get_write_buffer_size(self) -> int:
            raise Alarm

    with monkeypatch.context() as patched:
        patched.setattr(wire.transport._shortcut, "_transport", Transport())
        with pytest.raises(Alarm):
            wire.transport.write_here(frame("a"))


def test_a_connection_that_is_closed_or_lost_is_not_written_to(wire: Wire) -> None:
    wire.end()
    assert not wire.transport.write_here(frame("a"))


_INTERRUPTED = """
import os, random, signal, sys, threading
import lightlink

url, name, times, act = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
chance = random.Random(1)
client = lightlink.connect(url, timeout=30)

class Interrupt(BaseException):
    pass

def interrupt(*_):
    if act == "raise":
        raise Interrupt
    if act == "call":
        client.publish(name, 1)
        return
    child = os.fork()
    if not child:
        os._exit(0 if client.call(name, "echo", {"text": "child"}) == "child" else 1)
    assert os.waitpid(child, 0)[1] == 0

signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
for number in range(times):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 4e-4))
            assert client.call(name, "echo", {"text": str(number)}) == str(number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        interrupted += 1
assert client.call(name, "echo", {"text": "end"}) == "end"
assert client._connection.session.losses == 0
client.close()
print("ended", interrupted)
"""


@pytest.fixture
def echo(place: str, prefix: str) -> Iterator[str]:
    service = lightlink.Service(prefix, place)

    @service.rpc
    def echo(text: str) -> str:
        return text

    with service:
        yield prefix


@pytest.mark.parametrize(
    ("act", "times"),
    [
        ("raise", 1000),
        ("call", 500),
        ("fork", 25),
        pytest.param("raise", 20_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("call", 20_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("fork", 2_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_calls_interrupted_at_random_spare_the_connection(act: str, times: int, place: str, echo: str) -> None:
    finished = run_python(_INTERRUPTED, place, echo, times, act, timeout=590)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("ended")


def test_forks_while_a_thread_writes_disturb_neither_side(place: str, echo: str) -> None:
    finished = run_python(
        """
        import os, sys, threading
        import lightlink

        url, name = sys.argv[1:]
        client = lightlink.connect(url, timeout=30)
        ended, wrong, made = threading.Event(), [], [0]

        def call():
            while not ended.is_set():
                text = str(made[0])
                if client.call(name, "echo", {"text": text}) != text:
                    wrong.append(text)
                made[0] += 1

        thread = threading.Thread(target=call)
        thread.start()
        for _ in range(25):
            before = made[0]
            child = os.fork()
            if not child:
                os._exit(0 if client.call(name, "echo", {"text": "child"}) == "child" else 1)
            assert os.waitpid(child, 0)[1] == 0
            while made[0] == before:
                pass
        ended.set()
        thread.join()
        assert not wrong, wrong
        assert client._connection.session.losses == 0
        client.close()
        """,
        place,
        echo,
    )
    assert finished.returncode == 0, finished.stderr
