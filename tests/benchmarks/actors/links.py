"""How each kind of side connects, over TCP or mutual TLS. ``tls`` is a folder with ca.pem, bench.pem and bench.key."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import nats

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient

    import lightlink

IDENTITY = "bench"
_PATIENCE = 25.0
_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'


def connect(url: str, tls: str | None = None, **options: Any) -> lightlink.Client:
    """Return a LightLink client."""
    import lightlink

    # A machine that is as busy as one that measures may take its time, and what is measured comes after.
    return lightlink.connect(url, connect_timeout=_PATIENCE, **ours(tls), **options)


def ours(tls: str | None) -> dict[str, Any]:
    """Return what LightLink is given for a connection over TLS."""
    if tls is None:
        return {}
    import lightlink

    folder = Path(tls)
    return {"tls": lightlink.TLS(folder / "ca.pem", folder / f"{IDENTITY}.pem", folder / f"{IDENTITY}.key")}


async def connect_raw(url: str, tls: str | None = None) -> NatsClient:
    """Return a nats-py client."""
    return await nats.connect(url, tls=None if tls is None else _context(tls))


def connect_socket(url: str, tls: str | None = None) -> socket.socket:
    """Return a socket on which a server waits for commands."""
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    connected = socket.create_connection((host, parts.port or 4222))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        json.loads(_line(connected).removeprefix(b"INFO "))  # it says that TLS comes next
        connected = _context(tls).wrap_socket(connected, server_hostname=host)
    connected.sendall(_CONNECT)
    return connected


def _line(connected: socket.socket) -> bytes:
    """Read no more than a line: what is behind it belongs to TLS."""
    line = b""
    while not line.endswith(b"\n"):
        line += connected.recv(1)
    return line


def _context(tls: str) -> ssl.SSLContext:
    folder = Path(tls)
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / f"{IDENTITY}.pem", folder / f"{IDENTITY}.key")
    return context
