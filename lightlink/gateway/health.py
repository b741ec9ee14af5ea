"""HTTP endpoints of a gateway: ``/healthz`` for load balancers, ``/metrics`` for Prometheus."""

from __future__ import annotations

import os
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.threads import start_thread
from lightlink.errors import LinkError
from lightlink.gateway.options import host_and_port
from lightlink.protocol import codec
from lightlink.protocol.text import joined

if TYPE_CHECKING:
    from typing_extensions import Self

    from lightlink.gateway.gateway import Gateway

# Seconds for nats-server to accept a connection, and for an HTTP client to send its request.
_DIAL_TIMEOUT, _REQUEST_TIMEOUT = 1.0, 2.0


class HealthServer:
    """Serves one request at a time; bind it to an internal address.

    Raises InvalidOption for a malformed ``listen``, LinkError when the address cannot be bound.
    """

    def __init__(self, gateway: Gateway, listen: str) -> None:
        try:
            self._server = _server_on(host_and_port("health", listen), _handler_of(gateway))
        except OSError as exc:
            raise LinkError(f"listening on {listen}", exc.strerror or str(exc)) from exc
        start_thread(self._server.serve_forever, "lightlink-gateway-health")

    @property
    def url(self) -> str:
        """The base URL."""
        host, port = self._server.server_address[:2]
        return f"http://{joined(str(host), port)}"

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _server_on(address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> HTTPServer:
    class Server(HTTPServer):
        address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]

    return Server(address, handler)


def health(gateway: Gateway) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status (200 while the gateway accepts connections and reaches nats-server) and the details."""
    counts = gateway.counts
    facts = {"connections": counts.connections, "streams": counts.streams}
    if not gateway.is_running:
        return 503, {"status": "draining", **facts}
    try:
        socket.create_connection(gateway.options.upstream_address, _DIAL_TIMEOUT).close()
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else "no answer"
        return 503, {"status": f"{gateway.options.upstream}: {reason.lower()}", **facts}
    return 200, {"status": "ok", **facts}


def _handler_of(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT

        def do_GET(self) -> None:
            if self.path == "/healthz":
                status, facts = health(gateway)
                self._answer(status, "application/json", codec.encode_json(facts))
            elif self.path == "/metrics":
                text = "\n".join(gateway.counts.lines()) + "\n"
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", text.encode())
            else:
                self._answer(404, "application/json", codec.encode_json({"error": "not found"}))

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing: probes arrive every few seconds."""

    return Handler
