"""What the outages do to a mixed load whose every connection goes through a gateway and a link that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.edge import UdpRelay, gateway_for
from helpers.waiting import eventually

import lightlink
from chaos.load import balanced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

    from chaos.ledger import Ledger
    from lightlink.gateway import Gateway
    from lightlink.server import EmbeddedServer


class Edge:
    """A server with TLS that takes everybody, the gateway before it, and a relay before that."""

    def __init__(self, identities: Path, server: EmbeddedServer, reset_key: Path) -> None:
        self.server = server
        self.tls = lightlink.TLS(ca=identities / "ca.pem")
        self._identities, self._reset_key = identities, reset_key
        self.gateway = self.start("127.0.0.1:0")
        self.relay = UdpRelay(self.gateway.address[1])

    def start(self, listen: str) -> Gateway:
        upstream = f"tls://127.0.0.1:{self.server.port}"
        self.gateway = gateway_for(self._identities, upstream, listen=listen, reset_key=self._reset_key).start()
        return self.gateway

    def stop(self) -> None:
        self.relay.stop()
        self.gateway.stop()


@pytest.fixture
def edge(identities: Path, fresh_server: StartServer, tmp_path: Path) -> Iterator[Edge]:
    config = f"tls {{ cert_file: {identities}/server.pem, key_file: {identities}/server.key }}"
    running = Edge(identities, fresh_server(config=config), tmp_path / "reset.key")
    yield running
    running.stop()


def test_everything_goes_on_after_a_kill_of_the_server_behind(ledger: Ledger, edge: Edge, prefix: str) -> None:
    direct = f"tls://127.0.0.1:{edge.server.port}"
    with balanced(ledger, prefix, edge.relay.url, direct, tls=edge.tls):
        edge.server.kill()
        edge.server.start()


def test_everything_goes_on_after_a_restart_of_the_gateway(ledger: Ledger, edge: Edge, prefix: str) -> None:
    direct = f"tls://127.0.0.1:{edge.server.port}"
    with balanced(ledger, prefix, edge.relay.url, direct, tls=edge.tls) as load:
        edge.gateway.stop()
        eventually(lambda: load.client.status is lightlink.Status.RECONNECTING)
        edge.start(f"127.0.0.1:{edge.relay.target_port}")


def test_nothing_is_lost_on_a_lossy_link_that_changes_address(ledger: Ledger, edge: Edge, prefix: str) -> None:
    direct = f"tls://127.0.0.1:{edge.server.port}"
    seen: list[lightlink.Status] = []
    with balanced(ledger, prefix, edge.relay.url, direct, tls=edge.tls, call_timeout=20.0) as load:
        load.client.on_status_change(seen.append)
        edge.relay.loss = 0.01
        for _ in range(3):
            edge.relay.move()
            load.wait_progress()
        assert not seen
    assert load.calls.count("answered") == len(load.calls.outcomes)
