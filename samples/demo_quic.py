"""An agent whose address changes while its command runs, and which does not notice.

Run it with `make demo-quic`, or `python samples/demo_quic.py`. Everything is on this machine: a nats-server with mutual
TLS, a QUIC gateway before it, and between agent and gateway a NAT that forgets, as on a train, who the agent is.
"""

from __future__ import annotations

import logging
import selectors
import socket
import tempfile
import threading
import time
from pathlib import Path

import lightlink
from lightlink.certs import CertificateAuthority
from lightlink.gateway import Gateway, GatewayOptions
from lightlink.server import EmbeddedServer

STEPS = 5


class Nat:
    """Relay the datagrams of one client, from a port of its own that it may change at any time."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._inside, self._outside = self._new_port(), self._new_port()
        self._client: tuple[str, int] | None = None
        threading.Thread(target=self._relay, daemon=True).start()

    @property
    def port(self) -> int:
        """Where the client sends to."""
        port: int = self._inside.getsockname()[1]
        return port

    def forget(self) -> tuple[int, int]:
        """Drop the mapping: what comes from now on goes out from another port. Returns both."""
        before, self._outside = self._outside, self._new_port()
        ports = before.getsockname()[1], self._outside.getsockname()[1]
        before.close()
        return ports

    @staticmethod
    def _new_port() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        return sock

    def _relay(self) -> None:
        while True:
            with selectors.DefaultSelector() as ready:
                for sock in (self._inside, self._outside):
                    if sock.fileno() >= 0:
                        ready.register(sock, selectors.EVENT_READ)
                ready.select(0.02)
            try:
                while True:
                    data, self._client = self._inside.recvfrom(65536)
                    self._outside.sendto(data, self._target)
            except OSError:
                pass  # nothing more for now, or the port has just changed
            try:
                while self._client:
                    self._inside.sendto(self._outside.recv(65536), self._client)
            except OSError:
                pass


def main() -> None:
    """Send a command through a gateway, and change the agent's address while it runs."""
    logging.getLogger("lightlink").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        certs = Path(temporary) / "certs"
        # lightlink certs init certs/ --host 127.0.0.1 --gateway 127.0.0.1
        authority = CertificateAuthority.create(certs)
        authority.issue_server(["127.0.0.1"])
        authority.issue_gateway(["127.0.0.1"])
        # lightlink certs issue certs/ train-7 --role agent; lightlink certs issue certs/ ops --role manager
        authority.issue("train-7", "agent")
        authority.issue("ops", "manager")
        with EmbeddedServer(tls=certs) as server:
            # lightlink gateway --upstream tls://127.0.0.1:4222 --cert certs/gateway.pem --key certs/gateway.key
            pair = (certs / "gateway.pem", certs / "gateway.key")
            options = GatewayOptions(listen="127.0.0.1:0", upstream=server.url, cert=pair[0], key=pair[1])
            with Gateway(options) as gateway:
                ride(certs, server.url, gateway)


def ride(certs: Path, url: str, gateway: Gateway) -> None:
    """Run the agent on its train."""

    def tls(name: str) -> lightlink.TLS:
        return lightlink.TLS(certs / "ca.pem", certs / f"{name}.pem", certs / f"{name}.key")

    nat = Nat(gateway.address)
    agent = lightlink.Agent("train-7", f"quic://127.0.0.1:{nat.port}", tls=tls("train-7"))

    @agent.command("update")
    def update(context: lightlink.CommandContext) -> str:
        for step in range(1, STEPS + 1):
            time.sleep(0.3)  # the work
            context.progress(step / STEPS, f"part {step} of {STEPS}")
        return "updated"

    with lightlink.connect(url, tls=tls("ops")) as client, lightlink.CommandManager(client) as manager:
        promise = manager.send("train-7", "update", timeout=60)
        print("sent: update")
        changes: list[str] = []
        agent.start()
        agent.client.on_status_change(lambda status: changes.append(status.value))
        while not promise.done():
            time.sleep(0.4)
            print("the agent's port changes: {} -> {}".format(*nat.forget()))
        print("result:", promise.result(10))
        print("attempts:", promise.command().attempt)
        print("the gateway saw it move:", gateway.counts.migrations > 0)
        print("what the agent noticed:", changes or "nothing")
        agent.stop()


if __name__ == "__main__":
    main()
