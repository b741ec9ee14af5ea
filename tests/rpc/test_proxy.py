from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from helpers.raw import RawPeer
from helpers.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from helpers.proxy import TcpProxy
    from nats.aio.client import Client


class Wire:
    """A bare connection to a nats-server, through a proxy."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self._lines = self.socket.makefile("rb")

    def line(self) -> bytes:
        return self._lines.readline()

    def ping(self) -> None:
        self.socket.sendall(b"PING\r\n")

    def closed(self) -> bool:
        try:
            return self.line() == b""
        except ConnectionResetError:
            return True

    def silent(self) -> bool:
        """Whether nothing comes for a fifth of a second. Nothing can be read after that says yes."""
        self.socket.settimeout(0.2)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)
        return False

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@contextlib.contextmanager
def wire(proxy: TcpProxy) -> Iterator[Wire]:
    connection = Wire(proxy.port)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def greeted(proxy: TcpProxy) -> Iterator[Wire]:
    with wire(proxy) as connection:
        assert connection.line().startswith(b"INFO ")
        yield connection


def test_a_proxy_forwards_both_ways(proxy: StartProxy) -> None:
    with greeted(proxy()) as connection:
        connection.ping()
        assert connection.line() == b"PONG\r\n"


def test_a_proxy_forwards_much_without_changing_it(proxy: StartProxy, prefix: str) -> None:
    payloads = [bytes([number]) * 900_000 for number in range(10)]

    async def work(nc: Client) -> list[bytes]:
        subscription = await nc.subscribe(prefix)
        for payload in payloads:
            await nc.publish(prefix, payload)
        return [(await subscription.next_msg(timeout=30)).data for _ in payloads]

    with RawPeer(proxy().url) as peer:
        assert peer.run(work, timeout=30) == payloads


def test_cut_closes_every_connection_and_takes_new_ones(proxy: StartProxy) -> None:
    middle = proxy()
    with greeted(middle) as one, greeted(middle) as two:
        assert middle.connections == 2
        middle.cut()
        assert middle.connections == 0
        assert one.closed()
        assert two.closed()
    with greeted(middle):
        assert middle.connections == 1


def test_refuse_stops_new_connections_and_leaves_open_ones(proxy: StartProxy) -> None:
    middle = proxy()
    with greeted(middle) as connection:
        middle.refuse()
        middle.refuse()
        with pytest.raises(ConnectionRefusedError), wire(middle):
            pass
        connection.ping()
        assert connection.line() == b"PONG\r\n"


def test_accept_listens_again_on_the_same_port(proxy: StartProxy) -> None:
    middle = proxy()
    url = middle.url
    middle.accept()
    middle.refuse()
    middle.accept()
    assert middle.url == url
    with greeted(middle):
        pass


def test_pause_holds_open_connections_and_what_they_send(proxy: StartProxy) -> None:
    middle = proxy()
    with greeted(middle) as connection:
        middle.pause()
        connection.ping()
        assert connection.silent()
        middle.resume()
        assert connection.line() == b"PONG\r\n"


def test_pause_holds_new_connections_too(proxy: StartProxy) -> None:
    middle = proxy()
    middle.pause()
    with wire(middle) as connection:
        assert connection.silent()
        middle.resume()
        assert connection.line().startswith(b"INFO ")


def test_a_paused_connection_can_be_cut(proxy: StartProxy) -> None:
    middle = proxy()
    with greeted(middle) as connection:
        middle.pause()
        connection.ping()
        middle.cut()
        assert connection.closed()


def test_delay_holds_back_each_direction_in_order(proxy: StartProxy) -> None:
    middle = proxy()
    with greeted(middle) as connection:
        connection.socket.sendall(b'CONNECT {"verbose":false}\r\nSUB echo 1\r\n')
        middle.delay(0.1)
        started = time.monotonic()
        connection.ping()
        connection.socket.sendall(b"PUB echo 3\r\none\r\n")
        assert connection.line() == b"PONG\r\n"
        assert time.monotonic() - started >= 0.2
        assert [connection.line(), connection.line()] == [b"MSG echo 1 3\r\n", b"one\r\n"]
        middle.delay(0)
        connection.ping()
        assert connection.line() == b"PONG\r\n"


def test_the_end_of_either_side_reaches_the_other(proxy: StartProxy, fresh_server: StartServer) -> None:
    server = fresh_server()
    middle = proxy(server.url)
    with greeted(middle) as connection:
        server.kill()
        assert connection.closed()
    eventually(lambda: middle.connections == 0)
    server.start()
    with greeted(middle):
        assert middle.connections == 1
    eventually(lambda: middle.connections == 0)


def test_a_target_that_is_down_closes_the_connection(proxy: StartProxy, fresh_server: StartServer) -> None:
    server = fresh_server()
    middle = proxy(server.url)
    server.kill()
    with wire(middle) as connection:
        assert connection.closed()


def test_stop_ends_everything_and_can_be_called_again(proxy: StartProxy) -> None:
    middle = proxy()
    with greeted(middle) as connection:
        middle.pause()
        middle.stop()
        middle.stop()
        assert connection.closed()
    with pytest.raises(ConnectionRefusedError), wire(middle):
        pass


def test_a_real_client_comes_back_after_a_cut(proxy: StartProxy) -> None:
    middle = proxy()
    with RawPeer(middle.url, reconnect_time_wait=0.01) as peer:
        middle.cut()
        eventually(lambda: peer.nc.stats["reconnects"] == 1 and peer.nc.is_connected)
        peer.run(peer.nc.flush())


def test_a_half_open_proxy_closes_at_the_servers_end_only(proxy: StartProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(10)
        link = proxy(f"nats://127.0.0.1:{target.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", link.port), 10) as client, target.accept()[0] as served:
            served.settimeout(10)
            client.sendall(b"heard")
            assert served.recv(10) == b"heard"
            link.half_open()
            with contextlib.suppress(ConnectionResetError):
                assert served.recv(10) == b""
            client.sendall(b"not heard")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)
            with socket.create_connection(("127.0.0.1", link.port), 10), target.accept()[0]:
                assert link.connections == 2
        assert eventually(lambda: link.connections == 0)


def test_a_proxy_says_what_the_test_wants_in_the_servers_name(proxy: StartProxy) -> None:
    link = proxy()
    with greeted(link) as connection:
        link.inject(b"-ERR 'not from the server'\r\n")
        assert connection.line() == b"-ERR 'not from the server'\r\n"
        connection.ping()
        assert connection.line() == b"PONG\r\n"
