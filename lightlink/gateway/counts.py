"""The counters of a gateway, and their Prometheus text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Counts:
    """Counters. Only the gateway's event loop changes them; any thread may read them."""

    def __init__(self) -> None:
        self.connections = 0
        self.half_open = 0
        self.streams = 0
        self.accepted = 0
        self.migrations = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries = 0
        self.resets_sent = 0
        self.refusals: Counter[str] = Counter()

    def lines(self) -> Iterator[str]:
        """Return the lines of Prometheus' text format."""
        for name, value, kind, text in (
            ("connections", self.connections, "gauge", "QUIC connections that are open."),
            ("half_open_connections", self.half_open, "gauge", "QUIC handshakes in progress."),
            ("streams", self.streams, "gauge", "NATS connections that are open."),
            ("accepted_total", self.accepted, "counter", "QUIC connections whose handshake completed."),
            ("migrations_total", self.migrations, "counter", "Connection migrations to a new address."),
            ("received_bytes_total", self.bytes_in, "counter", "Bytes carried from clients to nats-server."),
            ("sent_bytes_total", self.bytes_out, "counter", "Bytes carried from nats-server to clients."),
            ("retries_total", self.retries, "counter", "Retry packets sent to validate addresses."),
            ("stateless_resets_total", self.resets_sent, "counter", "Stateless resets sent for unknown connections."),
        ):
            full = f"lightlink_gateway_{name}"
            yield from (f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {value}")
        yield "# HELP lightlink_gateway_refusals_total Connections and streams that were refused or ended, by reason."
        yield "# TYPE lightlink_gateway_refusals_total counter"
        for reason, count in sorted(self.refusals.copy().items()):
            yield f'lightlink_gateway_refusals_total{{reason="{reason}"}} {count}'
