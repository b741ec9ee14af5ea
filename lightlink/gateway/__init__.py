"""The QUIC edge: a gateway that carries NATS connections, byte for byte, from QUIC streams to a nats-server.

It holds no credentials and inspects nothing: TLS with nats-server runs inside the streams. See docs/how-to/quic.md.
"""

from __future__ import annotations

from lightlink.gateway.gateway import Gateway
from lightlink.gateway.options import GatewayOptions

__all__ = ["Gateway", "GatewayOptions"]
