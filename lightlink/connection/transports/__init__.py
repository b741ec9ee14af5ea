"""Transports: one class per kind of URL, chosen by its scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.connection.transports.tcp import TcpTransport
from lightlink.errors import InvalidOption
from lightlink.protocol.edge import Kind

if TYPE_CHECKING:
    from lightlink.connection.transports.base import Transport
    from lightlink.options import ConnectOptions


def make_transport(scheme: str, options: ConnectOptions, kind: Kind = Kind.MAIN) -> Transport:
    """Return a transport for a URL scheme; raises InvalidOption when its extra is not installed."""
    if scheme == "quic":
        try:
            from lightlink.connection.transports.quic import QuicTransport  # noqa: PLC0415 - its package may be missing
        except ModuleNotFoundError as exc:
            raise InvalidOption("url", f"quic:// needs the extra: pip install 'lightlink[quic]' ({exc})") from exc
        has_fallback = any(not server.startswith("quic://") for server in options.servers)
        return QuicTransport(options.tls, has_fallback=has_fallback, kind=kind)
    return TcpTransport()
