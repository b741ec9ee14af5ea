"""Who gets into a nats-server with the configuration made from a certificate directory, and who does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import warnings
from typing import TYPE_CHECKING

import nats.errors
import pytest
from helpers.pki import client_context, connect_to, refusal, serve
from helpers.waiting import eventually

from lightlink.certs import CertificateAuthority, server_config
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path


def test_a_reload_lets_the_new_in_and_puts_the_removed_out(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "certs")
    authority.issue_server(["127.0.0.1"])
    authority.issue("math", "service")
    config = tmp_path / "nats.conf"
    config.write_text(server_config(authority.directory, store_dir=None))
    with EmbeddedServer(config=config) as server, connect_to(server, authority.directory, "math") as service:
        service.run(lambda nc: serve(nc, "math"))
        authority.issue("late", "client")
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization violation"):
            connect_to(server, authority.directory, "late", allow_reconnect=False)
        reload(server, config, authority)
        with connect_to(server, authority.directory, "late") as late:
            # The service, connected since before, may answer into the new inbox.
            assert late.run(lambda nc: nc.request("$SRV.math.add", b"1", timeout=30)).data == b"answer to 1"
            (authority.directory / "late.pem").rename(tmp_path / "late.pem")
            shutil.copy(authority.directory / "late.key", tmp_path / "late.key")
            reload(server, config, authority)
            eventually(lambda: not late.nc.is_connected)


def reload(server: EmbeddedServer, config: Path, authority: CertificateAuthority) -> None:
    config.write_text(server_config(authority.directory, store_dir=None))
    before = server.log_file.read_text().count("Reloaded server configuration")
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: server.log_file.read_text().count("Reloaded server configuration") > before)


def test_a_client_without_a_certificate_is_refused(secured: EmbeddedServer, identities: Path) -> None:
    assert "CERTIFICATE_REQUIRED" in refusal(secured, ssl.create_default_context(cafile=identities / "ca.pem"))


def test_an_identity_of_another_authority_is_refused(secured: EmbeddedServer, identities: Path, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "certs")
    other.issue("ops", "admin")
    context = ssl.create_default_context(cafile=identities / "ca.pem")
    context.load_cert_chain(other.directory / "ops.pem", other.directory / "ops.key")
    assert "UNKNOWN_CA" in refusal(secured, context)


def test_the_server_s_certificate_opens_no_client_connection(secured: EmbeddedServer, identities: Path) -> None:
    assert "BAD_CERTIFICATE" in refusal(secured, client_context(identities, "server"))


def test_a_client_refuses_the_server_of_another_authority(secured: EmbeddedServer, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "certs")
    other.issue("web")
    assert refusal(secured, client_context(other.directory, "web")) == "CERTIFICATE_VERIFY_FAILED"


def test_the_server_speaks_no_tls_below_1_2(secured: EmbeddedServer, identities: Path) -> None:
    context = client_context(identities, "web")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    # OpenSSL itself would not offer it.
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert "PROTOCOL_VERSION" in refusal(secured, context)


def test_a_plain_connection_is_refused(secured: EmbeddedServer) -> None:
    with socket.create_connection(("127.0.0.1", secured.port), timeout=30) as plain:
        assert plain.recv(65536).startswith(b"INFO ")
        plain.sendall(b'CONNECT {"verbose": false}\r\nPING\r\n')
        answer = b"".join(iter(lambda: plain.recv(65536), b""))
    assert b"PONG" not in answer
