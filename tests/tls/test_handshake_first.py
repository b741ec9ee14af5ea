"""Servers that expect the TLS handshake before they say anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.certs import server_config
from lightlink.errors import ConnectError
from lightlink.options import ConnectOptions

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

    from lightlink.certs import CertificateAuthority
    from lightlink.server import EmbeddedServer


@pytest.fixture
def handshaking(fresh_server: StartServer, authority: CertificateAuthority) -> EmbeddedServer:
    """A server that greets whoever has not begun a handshake after two seconds only."""
    authority.issue_server(["127.0.0.1"])
    authority.issue("web", "client")
    config = server_config(authority.directory, store_dir=None, port=-1)
    return fresh_server(config=config.replace("tls {", 'tls {\n  handshake_first: "2s"', 1))


def test_it_is_spoken_to_first_and_again_after_an_outage(
    handshaking: EmbeddedServer, authority: CertificateAuthority
) -> None:
    url, tls = handshaking.url.replace("nats://", "tls://"), tls_of(authority.directory, "web")

    def before_it_greets() -> lightlink.Client | None:
        try:
            return lightlink.connect(url, tls=tls, tls_first=True, connect_timeout=1.5)
        except ConnectError:
            return None  # a slow machine may take longer; who waits for the greeting never succeeds

    with eventually(before_it_greets) as client:
        client.flush()
        handshaking.restart()
        assert client.wait_connected(30)
        client.flush()


def test_who_waits_for_its_greeting_is_told_of_the_option(
    handshaking: EmbeddedServer, authority: CertificateAuthority
) -> None:
    url, tls = handshaking.url.replace("nats://", "tls://"), tls_of(authority.directory, "web")
    with pytest.raises(ConnectError, match="needs tls_first=True"):
        lightlink.connect(url, tls=tls, connect_timeout=0.5)


def test_a_refusal_is_explained_as_with_others(handshaking: EmbeddedServer, authority: CertificateAuthority) -> None:
    authority.issue("unknown", "client")
    url, tls = handshaking.url.replace("nats://", "tls://"), tls_of(authority.directory, "unknown")
    with pytest.raises(lightlink.AuthenticationError, match="is that of 'unknown', whom the server does not know"):
        lightlink.connect(url, tls=tls, tls_first=True)


def test_a_context_may_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "nats" / "context").mkdir(parents=True)
    (tmp_path / "nats" / "context" / "edge.json").write_text(json.dumps({"url": "tls://h:1", "tls_first": True}))
    assert ConnectOptions.resolve(context="edge").tls_first
