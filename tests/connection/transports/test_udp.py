"""UDP sockets: nothing of what comes in a batch is lost, and a closed one leaves its port."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from lightlink.connection.transports.udp import UdpSocket

LOCAL = ("127.0.0.1", 0)
# More than the kernel hands over in one call.
MANY = 100


def test_more_than_one_read_takes_comes_whole_and_in_order() -> None:
    async def scenario() -> None:
        received: list[tuple[bytes, Any]] = []
        done = asyncio.Event()

        def receive(datagrams: list[bytes], address: Any) -> None:
            received.extend((datagram, address) for datagram in datagrams)
            if len(received) == 2 * MANY:
                done.set()

        one, other, into = [await UdpSocket.open(LOCAL, socket.AF_INET, on) for on in (print, print, receive)]
        addresses = [udp.socket.getsockname() for udp in (one, other, into)]
        for number in range(MANY):
            one.send([b"%d" % number], addresses[2])
            other.send([b"%d" % number], addresses[2])
        await asyncio.wait_for(done.wait(), 30)
        for address in addresses[:2]:
            assert [int(datagram) for datagram, source in received if source == address] == list(range(MANY))
        for udp in (one, other, into):
            udp.close()

    asyncio.run(scenario())


def test_what_one_write_segments_comes_as_datagrams() -> None:
    async def scenario() -> None:
        received: list[bytes] = []
        done = asyncio.Event()

        def receive(datagrams: list[bytes], _: Any) -> None:
            received.extend(datagrams)
            if len(received) == MANY:
                done.set()

        one, into = [await UdpSocket.open(LOCAL, socket.AF_INET, on) for on in (print, receive)]
        sent = [b"%04d" % number * 300 for number in range(MANY)]
        one.send(sent, into.socket.getsockname())
        await asyncio.wait_for(done.wait(), 30)
        assert received == sent
        one.close()
        into.close()

    asyncio.run(scenario())


def test_a_closed_socket_leaves_its_port_at_once() -> None:
    async def scenario() -> None:
        udp = await UdpSocket.open(LOCAL, socket.AF_INET, print)
        address = udp.socket.getsockname()
        udp.close()
        for _ in range(3):  # the transport closes in the loop's next turns
            await asyncio.sleep(0)
        again = await UdpSocket.open(address, socket.AF_INET, print)
        again.close()
        assert udp is not again  # what keeps the first alive keeps no descriptor of it

    asyncio.run(scenario())
