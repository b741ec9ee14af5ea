from __future__ import annotations

import contextlib
import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.loop import LoopThread
from helpers.stranger import Stranger
from helpers.waiting import eventually
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from lightlink.protocol.edge import ALPN, EdgeCode, Kind, preamble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython

    from lightlink.server import EmbeddedServer

KIB = 1024


class Edge:
    """A gateway in a process of its own."""

    def __init__(self, pid: int, port: int) -> None:
        self.port = port
        self._status = Path(f"/proc/{pid}/status")

    def memory(self) -> int:
        """Return the resident memory of its process, in bytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", self._status.read_text())
        assert found is not None
        return int(found[1]) * KIB


@pytest.fixture
def edge(python: StartPython, secured: EmbeddedServer, identities: Path) -> Edge:
    return start(python, secured.url, identities)


def start(python: StartPython, upstream: str, identities: Path) -> Edge:
    process = python(
        "import sys; from lightlink.cli import main; sys.argv[0] = 'lightlink'; main()",
        *("gateway", "--listen", "127.0.0.1:0", "--upstream", upstream, "--max-per-address", 2000, "--json"),
        *("--cert", identities / "gateway.pem", "--key", identities / "gateway.key"),
    )
    facts = json.loads("{" + process.wait_line("{"))
    return Edge(facts["pid"], int(facts["url"].rpartition(":")[2]))


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("strangers")
    yield thread
    thread.stop()


def hold(edge: Edge, count: int, ca: Path, thread: LoopThread) -> float:
    """Hold ``count`` NATS connections through a gateway, all served; return its memory for each, in bytes."""
    with contextlib.ExitStack() as stack:

        def connect() -> None:
            stranger = Stranger(edge.port, ca, thread)
            stack.callback(stranger.hang_up)
            ear = stranger.say(preamble(Kind.MAIN))
            eventually(lambda: ear.data.startswith(b"INFO "))

        for _ in range(20):
            connect()
        before = edge.memory()
        for _ in range(count):
            connect()
        return (edge.memory() - before) / count


def test_a_hundred_connections_are_served_at_once(edge: Edge, identities: Path, thread: LoopThread) -> None:
    assert hold(edge, 100, identities / "ca.pem", thread) < 256 * KIB


@pytest.mark.slow
def test_a_thousand_connections_take_64_kib_each(edge: Edge, identities: Path, thread: LoopThread) -> None:
    assert hold(edge, 1000, identities / "ca.pem", thread) < 64 * KIB


def test_a_flood_of_initial_packets_does_not_fill_the_memory(edge: Edge, identities: Path, thread: LoopThread) -> None:
    before = edge.memory()
    count = 2000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for _ in range(count):
            client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=[ALPN], server_name="127.0.0.1"))
            client.connect(("127.0.0.1", edge.port), 1.0)
            for data, _ in client.datagrams_to_send(1.0):
                flood.sendto(data, ("127.0.0.1", edge.port))
    stranger = Stranger(edge.port, identities / "ca.pem", thread)  # others are still accepted
    stranger.hang_up()
    # 64 half-open handshakes are kept; all 2,000 would take more than 100 MiB.
    assert edge.memory() - before < 32 * KIB * KIB


def test_a_server_that_reads_nothing_does_not_fill_the_memory(
    python: StartPython, identities: Path, thread: LoopThread
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, contextlib.ExitStack() as stack:
        edge = start(python, f"nats://127.0.0.1:{deaf.getsockname()[1]}", identities)
        other = Stranger(edge.port, identities / "ca.pem", thread)
        stack.callback(other.hang_up)
        ear = other.say(preamble(Kind.MAIN))
        served, _ = deaf.accept()
        stack.enter_context(served)
        before = edge.memory()
        sender = Stranger(edge.port, identities / "ca.pem", thread)
        stack.callback(sender.hang_up)
        cut = sender.say(preamble(Kind.MAIN), *[bytes(256 * KIB)] * 256)
        taken, _ = deaf.accept()
        stack.enter_context(taken)
        assert eventually(lambda: cut.code() == EdgeCode.UPSTREAM_SLOW, timeout=60)
        # 8 MiB may wait; 64 MiB were sent.
        assert edge.memory() - before < 32 * KIB * KIB
        # The other connection is still served.
        sent = b"INFO {}\r\n"
        served.sendall(sent)
        assert eventually(lambda: ear.data == sent)
