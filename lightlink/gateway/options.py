"""The configuration of a gateway, as one value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

from lightlink.errors import InvalidOption
from lightlink.protocol.edge import DEFAULT_PORT
from lightlink.validators import field, integer, seconds

if TYPE_CHECKING:
    import os

MEBIBYTE = 1024 * 1024


def _path(value: str | os.PathLike[str]) -> Path:
    return Path(value).absolute()


def _address(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    host_and_port(attribute.name, value)


def host_and_port(option: str, value: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, or of a URL; raises InvalidOption."""
    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError):
        host = port = None
    if not host or port is None:
        raise InvalidOption(option, "must be host:port", value)
    return host, port


@attrs.frozen(kw_only=True)
class GatewayOptions:
    """The configuration of a gateway. Times are in seconds, sizes in bytes. Raises InvalidOption.

    ``listen`` is ``host:port`` for UDP (port 0: any free one), ``upstream`` the nats-server behind it. ``cert`` and
    ``key`` (PEM) authenticate the gateway to its clients. ``max_connections`` bounds QUIC connections in all,
    ``max_per_address`` those from one address, ``max_streams`` the NATS connections on each. A client must complete
    the handshake within ``handshake_timeout`` and send a stream's preamble within ``preamble_timeout``; nats-server
    must accept the connection within ``dial_timeout``. A stream is reset when more than ``max_waiting`` bytes wait for
    a slow nats-server. From ``retry_above`` half-open connections on, an address is validated by a Retry before any
    state is kept for it (RFC 9000, section 8.1.2). ``reset_key`` is a file with a secret of 32 bytes, created if
    missing: with it a restarted gateway can reset the connections of the previous one (section 10.3).
    """

    listen: str = attrs.field(default=f"0.0.0.0:{DEFAULT_PORT}", validator=_address)
    upstream: str = attrs.field(default="tls://127.0.0.1:4222", validator=_address)
    cert: Path = attrs.field(converter=_path)
    key: Path = attrs.field(converter=_path)
    reset_key: Path | None = attrs.field(default=None, converter=attrs.converters.optional(_path))
    max_connections: int = attrs.field(default=4096, validator=field(integer))
    max_per_address: int = attrs.field(default=256, validator=field(integer))
    max_streams: int = attrs.field(default=4, validator=field(integer))
    max_waiting: int = attrs.field(default=8 * MEBIBYTE, validator=field(integer))
    retry_above: int = attrs.field(default=64, validator=field(integer))
    handshake_timeout: float = attrs.field(default=5.0, validator=field(seconds))
    preamble_timeout: float = attrs.field(default=5.0, validator=field(seconds))
    dial_timeout: float = attrs.field(default=3.0, validator=field(seconds))

    @property
    def upstream_address(self) -> tuple[str, int]:
        """Host and port of nats-server."""
        return host_and_port("upstream", self.upstream)
