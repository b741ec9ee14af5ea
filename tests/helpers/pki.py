"""Identities of every role, and plain nats-py clients that connect as one of them."""

from __future__ import annotations

import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import lightlink
from helpers.raw import RawPeer
from lightlink.protocol.permissions import inbox_prefix

if TYPE_CHECKING:
    import datetime
    from pathlib import Path

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from lightlink.certs import CertificateAuthority
    from lightlink.server import EmbeddedServer


class ConnectAs(Protocol):
    def __call__(self, name: str, **options: Any) -> RawPeer: ...


class LinkAs(Protocol):
    def __call__(self, name: str, **options: Any) -> lightlink.Client: ...


class SetClock(Protocol):
    def __call__(self, now: datetime.datetime) -> None: ...


def openssl(*arguments: str | Path) -> str:
    """Run the openssl command, and return what it prints."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def issue_all(authority: CertificateAuthority) -> None:
    """Issue certificates of a server and a gateway for 127.0.0.1 and identities of every role."""
    authority.issue_server(["127.0.0.1"], force=True)
    authority.issue_gateway(["127.0.0.1", "nats.example"])
    authority.issue("user-service", "service", publish=["events.user.>"], subscribe=["events.orders"], calls=["math"])
    authority.issue("store", "service", state=True, files=True)
    authority.issue("web", "client")
    authority.issue("web.eu", "client", publish=["events.eu.*"], subscribe=["events.news"], calls=["math"])
    authority.issue("keeper", "client", state=True, files=True)
    authority.issue("mute", "client", publish=[], calls=[])
    authority.issue("agent-a", "agent")
    authority.issue("agent-b", "agent")
    authority.issue("manager", "manager")
    authority.issue("caller", "manager", calls=["user-service"])
    authority.issue("ops", "admin")


def client_context(directory: Path, name: str) -> ssl.SSLContext:
    """Return the TLS context of an identity."""
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
    return context


def tls_of(directory: Path, name: str | None) -> lightlink.TLS:
    """Return the files of an identity as LightLink takes them; without a name the authority alone."""
    if name is None:
        return lightlink.TLS(ca=directory / "ca.pem")
    return lightlink.TLS(ca=directory / "ca.pem", cert=directory / f"{name}.pem", key=directory / f"{name}.key")


def connect_to(server: EmbeddedServer, directory: Path, name: str, **options: Any) -> RawPeer:
    """Connect as an identity; ``options`` go to ``nats.connect``."""
    options = {"inbox_prefix": inbox_prefix(name), "max_reconnect_attempts": 0} | options
    return RawPeer(server.url, tls=client_context(directory, name), **options)


def is_refused(peer: RawPeer, operation: str, subject: str) -> bool:
    """Publish or subscribe (a queue group may follow a space) and tell whether the server refused it."""
    peer.errors.clear()

    async def attempt(nc: Client) -> None:
        if operation == "publish":
            await nc.publish(subject, b"")
        else:
            name, _, queue = subject.partition(" ")
            await (await nc.subscribe(name, queue=queue)).unsubscribe()
        await nc.flush()

    peer.run(attempt)
    violations = [str(error) for error in peer.errors]
    assert all("permissions violation" in violation for violation in violations), violations
    return bool(violations)


async def serve(nc: Client, service: str) -> None:
    """Answer calls to a service, and discovery, with what was asked."""

    async def answer(request: Msg) -> None:
        await request.respond(b"answer to " + request.data)

    await nc.subscribe(f"$SRV.{service}.*", queue="q", cb=answer)
    await nc.subscribe("$SRV.PING", cb=answer)
    await nc.flush()


def refusal(server: EmbeddedServer, context: ssl.SSLContext) -> str:
    """Return the reason for which the TLS handshake fails.

    With TLS 1.3 the client's side is done before the server has looked at its certificate. The alert that follows is
    lost when the client writes before it reads, so this one writes nothing.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        assert plain.recv(65536).startswith(b"INFO ")
        with pytest.raises(ssl.SSLError) as caught, context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            secure.recv(1)
    return str(caught.value.reason)
