"""Which errors mean that one side does not accept the other, and what is said of those no test server brings up."""

from __future__ import annotations

import ssl

import nats.errors
import pytest

import lightlink
from lightlink.connection.dialing.diagnosis import explain, is_refusal
from lightlink.connection.nats_client import TLSRequired
from lightlink.options import ConnectOptions


def alert(name: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {name}] (_ssl.c:1)")
    error.reason = name
    return error


@pytest.mark.parametrize(
    "error",
    [
        nats.errors.Error("nats: 'Authorization Violation'"),
        nats.errors.Error("nats: 'User Authentication Expired'"),
        alert("TLSV1_ALERT_UNKNOWN_CA"),
        alert("SSL/TLS_ALERT_BAD_CERTIFICATE"),
        alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ssl.SSLCertVerificationError(),
        TLSRequired(),
    ],
    ids=str,
)
def test_a_refusal_is_told_apart(error: Exception) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        nats.errors.Error("nats: 'Authentication Timeout'"),
        nats.errors.Error("nats: 'maximum connections exceeded'"),
        nats.errors.StaleConnectionError(),
        alert("WRONG_VERSION_NUMBER"),
        ssl.SSLEOFError(8, "EOF occurred"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=str,
)
def test_what_may_heal_by_itself_is_no_refusal(error: Exception) -> None:
    assert not is_refusal(error)


CERT = lightlink.TLS(cert="/web.pem", key="/web.key")


@pytest.mark.parametrize(
    ("name", "tls", "words"),
    [
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", None, "the server wants a certificate of ours, and there is none"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", CERT, "the server refused our certificate /web.pem: bad certificate"),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", CERT, "the server refused our certificate /web.pem: certificate revoked"),
        (
            "SSL/TLS_ALERT_CERTIFICATE_EXPIRED",
            CERT,
            "/web.pem: it has expired, or is not valid yet, by the server's clock",
        ),
        ("TLSV1_ALERT_INTERNAL_ERROR", CERT, "the server ended the TLS handshake: internal error"),
        ("UNSUPPORTED_PROTOCOL", None, "the TLS handshake failed: UNSUPPORTED_PROTOCOL"),
    ],
)
def test_an_alert_is_put_into_words(name: str, tls: lightlink.TLS | None, words: str) -> None:
    assert words in explain(alert(name), 5.0, ConnectOptions(tls=tls))


def test_another_proof_of_identity_keeps_blame_off_certificates() -> None:
    violation = nats.errors.Error("nats: 'Authorization Violation'")
    assert explain(violation, 5.0, ConnectOptions(tls=CERT, user="ada", password="x")) == "Authorization Violation"
    # Its file is gone meanwhile.
    assert explain(violation, 5.0, ConnectOptions(tls=CERT)) == "Authorization Violation"
