from __future__ import annotations

import asyncio
import contextlib
import gc
import http.server
import itertools
import random
import re
import socket
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import uvloop
from helpers.ports import free_port
from helpers.waiting import eventually
from nats.aio.client import Server, Srv

import lightlink
from lightlink.connection.dialing.dial import Backoff, dial
from lightlink.connection.dialing.resolver import Resolver
from lightlink.connection.nats_client import WireClient
from lightlink.errors import ConnectError
from lightlink.options import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartProxy, StartServer


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lightlink-")}


@pytest.fixture
def dead_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    return free_port()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Start something that says one thing to whoever connects, and then nothing; returns its URL."""
    sockets: list[socket.socket] = []

    def start(words: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def serve() -> None:
            while True:
                try:
                    taken, _ = listener.accept()
                except OSError:
                    return
                sockets.append(taken)
                taken.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        return f"nats://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for sock in sockets:
        # Closing alone does not wake a thread that accepts.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def failure(url: str | list[str], timeout: float = 5.0) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        lightlink.connect(url, connect_timeout=timeout)
    assert type(caught.value) is ConnectError
    assert caught.value.timeout == timeout
    return caught.value


def test_a_port_where_nobody_listens_is_a_connect_error(dead_port: int) -> None:
    error = failure(f"nats://127.0.0.1:{dead_port}")
    assert error.tried == [(f"nats://127.0.0.1:{dead_port}", "connection refused")]


def test_a_name_that_does_not_resolve_is_said_to() -> None:
    error = failure("nats://no-such-host.invalid:4222")
    ((server, reason),) = error.tried
    assert server == "nats://no-such-host.invalid:4222"
    assert "does not resolve" in reason


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_name_that_no_host_can_have_is_said_to_be_one(host: str) -> None:
    with pytest.raises(ConnectError, match=r"does not resolve \(it cannot be a host's name\)"):
        lightlink.connect(f"nats://{host}:4222")


@pytest.mark.parametrize(
    ("written", "told"),
    [("0:0:0:0:0:0:0:1", "::1"), ("2001:0DB8::0a", "2001:db8::a"), ("::ffff:7f00:1", "::ffff:127.0.0.1")],
)
def test_an_address_is_told_as_sockets_tell_it(written: str, told: str) -> None:
    assert asyncio.run(Resolver().look_up(written, 4222)) == [(told, 4222)]


def assert_given_up(error: ConnectError, url: str) -> None:
    """Its time is what was left of the whole when its turn came."""
    ((server, reason),) = error.tried
    assert server == url
    left = re.fullmatch(r"no NATS server answered within (\S+) s", reason)
    assert left is not None
    assert float(left[1]) <= 0.2


def test_one_who_never_says_a_word_is_given_up_after_the_limit(answering: Callable[[bytes], str]) -> None:
    url = answering(b"")
    assert_given_up(failure(url, 0.2), url)


def test_an_http_server_that_waits_is_given_up_after_the_limit() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        url = f"nats://127.0.0.1:{web.server_address[1]}"
        error = failure(url, 0.2)
        web.shutdown()
        thread.join(10)
    assert_given_up(error, url)


@pytest.mark.parametrize(
    "words",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"INFO not json\r\n",
        b"\r\n",
        b"\xff" * 100_000 + b"\r\n",
        b"INFO []\r\n",
        b"INFO null\r\n",
        b"INFO " + b"[" * 20_000 + b"\r\n",
        b'INFO {"max_payload":"much"}\r\n',
        b'INFO {"max_payload":-1}\r\n',
        b'INFO {"max_payload":NaN}\r\n',
        b'INFO {"max_payload":100,"version":"new"}\r\n',
        b'INFO {"max_payload":100,"connect_urls":5}\r\n',
        b'INFO {"max_payload":100,"connect_urls":["[::1"]}\r\n',
        b'INFO {"max_payload":100,"nonce":5}\r\n',
    ],
    ids=lambda words: ascii(words[:40]),
)
def test_one_who_speaks_another_protocol_is_no_nats_server(words: bytes, answering: Callable[[bytes], str]) -> None:
    url = answering(words)
    assert failure(url).tried == [(url, "what answers there is not a NATS server")]


def test_a_server_that_falls_silent_in_the_handshake_is_given_up(answering: Callable[[bytes], str]) -> None:
    url = answering(b'INFO {"server_id":"x","version":"2.10.0","max_payload":100}\r\n')
    assert "no NATS server answered" in failure(url, 0.2).tried[0][1]


def test_a_server_silent_after_the_handshake_is_given_up_too(answering: Callable[[bytes], str]) -> None:
    url = answering(b'INFO {"server_id":"x","version":"2.10.0","max_payload":100}\r\nPONG\r\n')
    assert failure(url, 0.2).servers == [url]


def test_a_failed_connect_leaves_no_thread_behind(dead_port: int, answering: Callable[[bytes], str]) -> None:
    before = threads()
    for url in (f"nats://127.0.0.1:{dead_port}", answering(b""), answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")):
        failure(url, 0.1)
    eventually(lambda: threads() <= before)  # of other tests' some may end meanwhile


@pytest.mark.parametrize("order", range(4))
def test_a_dead_server_among_several_is_passed_over(order: int, url: str, dead_port: int, prefix: str) -> None:
    random.seed(order)  # both orders are tried
    errors: list[Exception] = []
    servers = [f"nats://127.0.0.1:{dead_port}", url]
    with lightlink.connect(servers, on_error=errors.append) as client, client.subscribe(prefix) as subscription:
        client.publish(prefix, 1)
        assert subscription.get(timeout=30).data == 1
        assert client.status is lightlink.Status.CONNECTED
    assert errors == []


@pytest.mark.parametrize("order", range(4))
def test_a_silent_server_leaves_time_for_the_others(order: int, url: str, answering: Callable[[bytes], str]) -> None:
    random.seed(order)
    servers = [answering(b""), url, answering(b"")]
    for limit in (0.9, 9.0):  # a busy machine may take more than a third of the first for itself
        with contextlib.suppress(ConnectError), lightlink.connect(servers, connect_timeout=limit) as client:
            client.flush()
            return
    pytest.fail("the silent ones have taken all of the time")


def test_when_all_servers_fail_each_is_named_with_its_own_reason(
    dead_port: int, answering: Callable[[bytes], str]
) -> None:
    dead, web, silent = f"nats://127.0.0.1:{dead_port}", answering(b"HTTP/1.1 400 Bad\r\n\r\n"), answering(b"")
    error = failure([dead, web, silent], 3.0)  # of which the silent one takes its share
    reasons = dict(error.tried)
    assert reasons.keys() == {dead, web, silent}
    assert reasons[dead] == "connection refused"
    assert reasons[web] == "what answers there is not a NATS server"
    assert "no NATS server answered" in reasons[silent]
    assert all(server in str(error) for server in (dead, web, silent))


def test_the_first_connects_share_does_not_shorten_later_ones(url: str, dead_port: int) -> None:
    random.seed(0)
    with lightlink.connect([f"nats://127.0.0.1:{dead_port}", url], connect_timeout=30.0) as client:
        assert client._connection.session.nc.options["connect_timeout"] == 30.0


def test_connecting_through_a_network_back_in_time_succeeds(proxy: StartProxy) -> None:
    slow = proxy()
    slow.pause()
    threading.Timer(0.1, slow.resume).start()
    with lightlink.connect(slow.url, connect_timeout=30) as client:
        client.flush()


def test_several_servers_are_all_known_to_the_reconnect(fresh_server: StartServer, prefix: str) -> None:
    first, second = fresh_server(), fresh_server()
    with lightlink.connect([first.url, second.url], reconnect_wait=0.01) as client:
        subscription = client.subscribe(prefix)
        for losses in (1, 2):
            connected = client._connection.session.nc.connected_url
            assert connected
            (first if connected.port == first.port else second).kill()
            eventually(lambda losses=losses: client._connection.session.losses == losses)
            assert client.wait_connected(30)
            client.publish(prefix, 1)
            assert subscription.get(timeout=30).data == 1
            first.start()
            second.start()


def test_waits_between_attempts_double_up_to_a_cap() -> None:
    backoff = Backoff(ConnectOptions(reconnect_wait=0.1, reconnect_wait_max=1.0))
    servers = [Server(uri=Srv(urlsplit(f"nats://{name}:1")).uri, reconnects=0) for name in "ab"]  # type: ignore[arg-type]
    chosen = [backoff(servers, {}) for _ in range(20)]
    assert [server for server, _ in chosen] == servers * 10
    waits = [wait for _, wait in chosen]
    for number, wait in enumerate(waits):
        most = min(1.0, 0.1 * 2 ** (number // 2))
        assert most / 2 <= wait <= most
    assert len(set(waits)) > 10
    backoff.reset()
    assert backoff(servers, {})[1] <= 0.1


def test_connecting_from_a_thread_with_a_running_loop_works(url: str) -> None:
    async def main() -> lightlink.Status:
        with lightlink.connect(url) as client:
            client.flush()
            return client.status

    assert asyncio.run(main()) is lightlink.Status.CONNECTED


async def no_callback(*_: object) -> None:
    """Called by nats-py, for nothing."""


async def cancel_a_dial(options: ConnectOptions, instant: int, stays: bool) -> bool:
    """Cancel a dial as a function is called for the ``instant``th time; False when it was over before.

    Unless the loop ``stays``, it ends in the same moment.
    """
    loop, calls, ended = asyncio.get_running_loop(), itertools.count(1), asyncio.Event()
    callbacks = dict.fromkeys(
        ("error_cb", "disconnected_cb", "reconnected_cb", "closed_cb", "lame_duck_mode_cb"), no_callback
    )

    async def connect() -> None:
        client = await dial(options, lambda: WireClient(require_tls=False, on_denied=lambda *_: None), callbacks)
        client.give_up()
        await client.discard()

    connecting = asyncio.ensure_future(connect())
    connecting.add_done_callback(lambda _: ended.set())

    def look(_frame: object, event: str, _: object) -> None:
        if event == "call" and next(calls) == instant:
            loop.call_soon(connecting.cancel)
            if not stays:
                loop.call_soon(ended.set)

    sys.setprofile(look)
    try:
        await ended.wait()
    finally:
        sys.setprofile(None)
    return next(calls) > instant


@pytest.mark.parametrize("stays", [True, False], ids=["alone", "with the loop"])
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
@pytest.mark.filterwarnings("always::ResourceWarning")
def test_a_dial_cancelled_at_any_instant_leaves_nothing_open(
    run: Callable[..., bool],
    stays: bool,
    url: str,
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As by Ctrl-C in `connect`. Every fifth instant is tried."""
    options = ConnectOptions.resolve(url)
    for instant in itertools.count(1, 5):
        if not run(cancel_a_dial(options, instant, stays)):
            break
    gc.collect()
    assert instant > 100
    assert [str(warning.message) for warning in recwarn if warning.category is ResourceWarning] == []
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
