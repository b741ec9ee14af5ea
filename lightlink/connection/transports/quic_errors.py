"""Errors of QUIC connections and streams, told apart from those of the inner TLS and named like TCP's."""

from __future__ import annotations

from lightlink.protocol.edge import EdgeCode

# A TLS alert (RFC 8446, section 6) as a QUIC error code: RFC 9001, section 4.8.
_CRYPTO_ERROR = 0x100
_NO_ALPN = 120
# Alerts about a certificate.
_CERTIFICATE = frozenset({42, 43, 44, 45, 46, 48, 49})

_MEANING = {
    EdgeCode.NO_ERROR: "the gateway closed the connection",
    EdgeCode.SHUTTING_DOWN: "the gateway is shutting down",
    EdgeCode.BAD_PREAMBLE: "the gateway does not know this version of the protocol",
    EdgeCode.PREAMBLE_TIMEOUT: "the gateway waited in vain for the beginning of a NATS connection",
    EdgeCode.TOO_MANY_CONNECTIONS: "the gateway has too many connections, in all or from this address",
    EdgeCode.TOO_MANY_STREAMS: "the gateway allows no more streams on a connection",
    EdgeCode.UPSTREAM_UNREACHABLE: "the gateway does not reach the NATS server behind it",
    EdgeCode.UPSTREAM_SLOW: "the NATS server behind the gateway takes less than is sent to it",
    EdgeCode.UPSTREAM_LOST: "the NATS server behind the gateway closed the connection",
}


class GatewayError(ConnectionError):
    """A QUIC connection or stream was closed; ``code`` is the gateway's, or QUIC's own with ``is_transport``."""

    def __init__(self, code: int, reason: str, *, is_transport: bool = False) -> None:
        super().__init__()
        self.code = code
        self.reason = reason
        self.is_transport = is_transport

    @property
    def alert(self) -> int | None:
        """The TLS alert of QUIC that closed it, if any."""
        return self.code - _CRYPTO_ERROR if self.is_transport and 0 <= self.code - _CRYPTO_ERROR <= 0xFF else None

    @property
    def is_refusal(self) -> bool:
        """Whether one side rejected the other's identity."""
        return self.alert in _CERTIFICATE

    def __str__(self) -> str:
        # qh3 servers send handshake_failure (40) with the reason as text.
        if self.alert == _NO_ALPN or (self.alert is not None and "ALPN" in self.reason):
            return "what answers there over QUIC is not a LightLink gateway (ALPN)"
        if self.is_refusal:
            return f"the gateway's certificate was not accepted (QUIC, outer TLS): {self.reason or 'bad certificate'}"
        if self.alert is not None:
            why = self.reason or f"alert {self.alert}"
            return f"the TLS handshake with the gateway failed (QUIC, outer TLS): {why}"
        if self.is_transport:
            return f"the QUIC connection to the gateway ended: {self.reason or f'error {self.code:#x}'}"
        try:
            return _MEANING[EdgeCode(self.code)]
        except ValueError:
            return f"the gateway ended the connection: {self.reason or f'error {self.code:#x}'}"


class UdpSilence(ConnectionError):
    """No UDP packet came back."""

    def __init__(self, host: str, port: int, timeout: float, fallback: bool) -> None:
        super().__init__()
        self.port = port
        self._text = f"nothing answered over UDP from {host} port {port} within {timeout:.3g} s: "
        self._text += "no gateway listens there, or UDP is blocked on the way"
        if not fallback:
            self._text += "; a second server such as quic://...,tls://... is tried over TCP then"

    def __str__(self) -> str:
        return self._text
