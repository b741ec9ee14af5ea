"""Find out why a connection failed, and say so in the terms of the user's URL and files."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING

import nats.errors

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.nats_client import TLSRequired, WireClient
from lightlink.connection.transports.quic_errors import GatewayError, UdpSilence
from lightlink.errors import InvalidOption, LightLinkError

if TYPE_CHECKING:
    from lightlink.options import TLS, ConnectOptions

_REFUSALS = ("authorization violation", "authentication", "nkey", "jwt")
_HUNG_UP = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
# How long a server is given to say something before we speak, the most that asking again may take (both in seconds),
# and how often it is done: a busy server may need longer than the pause.
_PAUSE = 0.4
_ASKING = 3.0
_TIMES = 3

# What X509_verify_cert says (verify_code) of a certificate that no authority of ours has signed.
_UNKNOWN_AUTHORITY = frozenset({2, 7, 18, 19, 20, 21})
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_HOST = frozenset({62, 64})
# Alerts (RFC 8446, section 6.2) that are about the client's certificate.
_OURS = frozenset(
    {
        "bad certificate",
        "unsupported certificate",
        "certificate revoked",
        "certificate expired",
        "certificate unknown",
        "unknown ca",
        "access denied",
    }
)
_NO_CERTIFICATE = frozenset({"certificate required", "handshake failure", "bad certificate"})
_MEANING = {
    "unknown ca": "it is of an authority that the server does not know",
    "certificate expired": "it has expired, or is not valid yet, by the server's clock",
}


async def true_reason(client: WireClient, exc: BaseException, timeout: float) -> BaseException:
    """Return the error behind one that only says that the server hung up; takes ``timeout`` seconds at most.

    With TLS 1.3 a client's handshake is over before the server has looked at its certificate. What the server says of
    it is lost when the connection breaks under what the client has written meanwhile, and so is, sometimes, its word on
    CONNECT. Asking again, and listening before each word, brings it to light.
    """
    deadline = Deadline(min(timeout, _ASKING))
    pause = min(_PAUSE, timeout / 6)
    for _ in range(_TIMES):
        if not _is_unclear(exc):
            break
        try:
            await asyncio.wait_for(client.ask_again(pause), deadline.remaining())
        except asyncio.TimeoutError:
            break
        except (ssl.SSLError, nats.errors.Error, *_HUNG_UP) as reason:
            exc = reason
        except (OSError, ValueError):
            break  # it is gone
        else:
            break  # it would take us now
    return exc


def is_refusal(exc: BaseException) -> bool:
    """Tell whether an error means that one side does not accept the other's identity."""
    if isinstance(exc, TLSRequired):
        return True
    if isinstance(exc, GatewayError):
        return exc.is_refusal
    if isinstance(exc, ssl.SSLError):
        # Others come from connections that break off, and from servers that are full.
        return isinstance(exc, ssl.SSLCertVerificationError) or _alert(exc) is not None
    if not isinstance(exc, nats.errors.Error):
        return False
    text = str(exc).lower()
    return "timeout" not in text and any(word in text for word in _REFUSALS)


def explain(exc: BaseException, timeout: float, options: ConnectOptions) -> str:
    """Say why a server was not taken."""
    if isinstance(exc, (LightLinkError, GatewayError, UdpSilence)):
        return str(exc)
    if isinstance(exc, asyncio.TimeoutError):
        silent = "; one that expects the TLS handshake first needs tls_first=True"
        return f"no NATS server answered within {timeout:.3g} s{silent if _may_expect_tls(options) else ''}"
    if isinstance(exc, ssl.SSLError):
        return _explain_tls(exc, options.tls)
    if isinstance(exc, socket.gaierror):
        return f"the host name does not resolve ({exc.strerror})"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    if "info message" in str(exc).lower() or isinstance(exc, ValueError):
        return "what answers there is not a NATS server"
    text = str(exc).removeprefix("nats: ").strip("'") or type(exc).__name__
    return _explain_violation(text, options) if "authorization violation" in text.lower() else text


def _may_expect_tls(options: ConnectOptions) -> bool:
    return options.wants_tls and not options.tls_first


def _is_unclear(exc: BaseException) -> bool:
    if isinstance(exc, ssl.SSLError):
        return not is_refusal(exc)
    return isinstance(exc, (*_HUNG_UP, nats.errors.UnexpectedEOF, nats.errors.StaleConnectionError))


# TLS ----------------------------------------------------------------------------------------------------------------


def _explain_tls(exc: ssl.SSLError, tls: TLS | None) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate {_fault_of_server(exc, tls)}"
    alert = _alert(exc)
    cert = None if tls is None else tls.cert
    if alert is None:
        return f"the TLS handshake failed: {getattr(exc, 'reason', None) or exc}"
    if cert is None and alert in _NO_CERTIFICATE:
        return f"the server wants a certificate of ours, and there is none (tls.cert): {alert}"
    if cert is not None and alert in _OURS:
        meaning = f"{_MEANING[alert]} ({alert})" if alert in _MEANING else alert
        return f"the server refused our certificate {cert}: {meaning}"
    return f"the server ended the TLS handshake: {alert}"


def _fault_of_server(exc: ssl.SSLCertVerificationError, tls: TLS | None) -> str:
    message = exc.verify_message.rstrip(".")
    if exc.verify_code in _UNKNOWN_AUTHORITY:
        if tls is None or tls.ca is None:
            return f"is of no authority that this system trusts, and tls.ca is not given: {message}"
        return f"is of no authority in {tls.ca}: {message}"
    if exc.verify_code in _OTHER_HOST:
        return f"is for another host: {message}; use a name that it holds in the URL or as TLS(hostname=)"
    if exc.verify_code == _EXPIRED:
        return "has expired, or that of its authority has"
    if exc.verify_code == _NOT_YET_VALID:
        return "is not valid yet, or this machine's clock is slow"
    return f"was not accepted: {message}"


def _alert(exc: ssl.SSLError) -> str | None:
    """Return what the other side said as it ended the handshake, such as ``unknown ca``."""
    _, found, alert = (getattr(exc, "reason", None) or "").partition("ALERT_")
    return alert.replace("_", " ").lower() if found else None


def _explain_violation(text: str, options: ConnectOptions) -> str:
    tls = options.tls
    if tls is None or tls.cert is None or options.user or options.token or options.creds or options.nkey:
        return text
    from lightlink.certs import identity_of  # noqa: PLC0415 - cryptography takes long to import

    try:
        name = identity_of(tls.cert)
    except InvalidOption:
        return text
    whose = "has no name (DNS SAN), and the server" if name is None else f"is that of {name!r}, whom the server"
    return f"our certificate {tls.cert} {whose} does not know: {text}"
