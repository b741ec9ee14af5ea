"""What the demo over mutual TLS adds: certificates, and a chapter on what they are for."""

# ruff: noqa: T201 - a chapter prints, as a reader's own program would.

from __future__ import annotations

from typing import TYPE_CHECKING

import lightlink
from lightlink.certs import CertificateAuthority
from lightlink.cli.demo.nat import Nat
from lightlink.gateway import Gateway, GatewayOptions

if TYPE_CHECKING:
    from pathlib import Path


def make_certificates(folder: Path) -> None:
    """Make an authority in a folder, a server's certificate and the identities of the demo."""
    authority = CertificateAuthority.create(folder)
    authority.issue_server(["localhost", "127.0.0.1"])
    events = ["orders.shipped", "invoices.read"]
    authority.issue("shop", "service", publish=events, subscribe=["orders.new"], state=True, files=True)
    # The part of the user, who shows everything.
    authority.issue("demo", "admin")
    authority.issue("guest", "client", publish=[], calls=["shop"])
    authority.issue_gateway(["127.0.0.1"])
    authority.issue("train-7", "agent")


def identity(folder: Path, name: str) -> lightlink.TLS:
    """Return the files of an identity."""
    return lightlink.TLS(ca=folder / "ca.pem", cert=folder / f"{name}.pem", key=folder / f"{name}.key")


def folder_of(client: lightlink.Client) -> Path:
    """Return the folder with a client's certificates."""
    tls = client.options.tls
    assert tls is not None
    assert tls.ca is not None
    return tls.ca.parent


def identities(client: lightlink.Client) -> None:
    """Nobody gets in who does not belong.

    Each side has proved with a certificate who it is. What an identity may do is decided by the server, from the role
    it was given with `lightlink certs issue`: the guest may call the shop, and nothing else. Without a certificate
    nobody gets in at all.
    """
    server, folder = client.options.servers, folder_of(client)
    with lightlink.connect(server, tls=identity(folder, "guest")) as guest:
        print("the guest asks for a price:", guest.call("shop", "total", {"item": "apple"}))
        try:
            guest.subscribe("orders.*")
        except lightlink.PermissionDenied as error:
            print(f"{type(error).__name__}: {error}")
    try:
        lightlink.connect(server, tls=lightlink.TLS(ca=folder / "ca.pem"))
    except lightlink.AuthenticationError as error:
        print(f"{type(error).__name__}: {error}")


def roaming(client: lightlink.Client) -> None:
    """Change an agent's address while its command runs.

    A gateway speaks QUIC to agents on bad and roaming links, and carries their bytes to the server. TLS with the server
    runs inside, where the gateway reads nothing. The NAT between agent and gateway forgets the agent with each part, as
    on a train; nothing is lost, and the agent does not notice.
    """
    folder, (server,) = folder_of(client), client.options.servers
    cert, key = folder / "gateway.pem", folder / "gateway.key"
    options = GatewayOptions(listen="127.0.0.1:0", upstream=server, cert=cert, key=key)
    with Gateway(options) as gateway, Nat(gateway.address) as nat:
        noticed: list[str] = []
        agent = lightlink.Agent("train-7", f"quic://127.0.0.1:{nat.port}", tls=identity(folder, "train-7"))

        @agent.command("update")
        def update(context: lightlink.CommandContext) -> str:
            for part in range(1, 4):
                print("the agent is at port", nat.forget(), "now")
                context.progress(part / 3, f"part {part} of 3")
            return "updated"

        with agent, lightlink.CommandManager(client) as manager:
            agent.client.on_status_change(lambda status: noticed.append(status.value))
            command = manager.send("train-7", "update", timeout=20)
            print("the result:", command.result(timeout=20), "- attempts:", command.command().attempt)
            print("the gateway saw it move:", gateway.counts.migrations > 0)
            print("the agent noticed:", noticed or "nothing")
