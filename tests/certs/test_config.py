"""The nats-server configuration made from a certificate directory; who may do what with it is tried elsewhere."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import subprocess
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from helpers.pki import connect_to, is_refused, issue_all
from helpers.raw import RawPeer
from helpers.waiting import eventually

from lightlink.certs import CertificateAuthority, server_config
from lightlink.certs.config import most_connections
from lightlink.errors import InvalidOption
from lightlink.protocol.permissions import Grant
from lightlink.server import EmbeddedServer, find_server


def check(config: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "nats.conf"
    file.write_text(config)
    return subprocess.run([find_server(), "-t", "-c", file], capture_output=True, text=True, check=False)


def test_nats_server_takes_the_configuration_as_it_is(authority: CertificateAuthority, tmp_path: Path) -> None:
    issue_all(authority)
    done = check(server_config(authority.directory, host="::", port=4333, store_dir=tmp_path / "js"), tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_value_reaches_the_server(authority: CertificateAuthority) -> None:
    authority.issue_server(["127.0.0.1"], name="edge")
    config = server_config(authority.directory, port=-1, store_dir=None, max_payload=5000, server="edge")
    with EmbeddedServer(config=config) as server, socket.create_connection(("127.0.0.1", server.port), 30) as client:
        info = json.loads(client.recv(65536).removeprefix(b"INFO "))
    assert info["max_payload"] == 5000
    assert (info["tls_required"], info["tls_verify"], info["jetstream"]) == (True, True, True)


def test_one_connection_more_than_allowed_is_refused(authority: CertificateAuthority) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("web")
    folder = authority.directory
    with EmbeddedServer(config=server_config(folder, store_dir=None, max_connections=1)) as server:

        def first() -> RawPeer | None:
            with contextlib.suppress(nats.errors.Error, OSError):  # the server may still count one that has just left
                return connect_to(server, folder, "web")
            return None

        with eventually(first), socket.create_connection(("127.0.0.1", server.port), 30) as plain:
            refused = b"".join(iter(lambda: plain.recv(65536), b""))
        assert b"maximum connections exceeded" in refused


@pytest.mark.parametrize("name", ["with space", 'quo"te', "back\\slash", "dollar$HOME", "hash#{}", "single'", "é"])
def test_a_directory_of_any_name_stands_in_the_configuration(tmp_path: Path, name: str) -> None:
    authority = CertificateAuthority.create(tmp_path / name)
    authority.issue_server(["127.0.0.1"])
    done = check(server_config(authority.directory, store_dir=tmp_path / name / "js"), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_directory_that_could_break_out_of_its_line_is_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / 'x"\nlisten: 0')
    authority.issue_server(["127.0.0.1"])
    with pytest.raises(InvalidOption, match="control character"):
        server_config(authority.directory)


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 0},
        {"port": 65536},
        {"port": "4222"},
        {"port": True},
        {"max_payload": 0},
        {"max_connections": -1},
        {"max_memory": 1.5},
        {"max_disk": None},
    ],
)
def test_a_setting_that_cannot_be_is_named(authority: CertificateAuthority, settings: dict[str, Any]) -> None:
    authority.issue_server(["127.0.0.1"])
    with pytest.raises(InvalidOption, match="must be an integer"):
        server_config(authority.directory, **settings)


def test_without_a_server_certificate_there_is_no_configuration(authority: CertificateAuthority) -> None:
    with pytest.raises(InvalidOption, match=r"server\.pem.*lightlink certs init"):
        server_config(authority.directory)
    authority.issue("web")
    with pytest.raises(InvalidOption, match=r"web\.pem.*lightlink certs init"):
        server_config(authority.directory, server="web")


def test_a_certificate_about_to_end_is_logged(
    authority: CertificateAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("web", days=3)
    with caplog.at_level(logging.WARNING, "lightlink"):
        server_config(authority.directory)
    assert len(caplog.records) == 1
    assert "web.pem expires in" in caplog.text


def test_what_is_shared_does_not_grow_with_the_fleet(authority: CertificateAuthority) -> None:
    authority.issue_server(["127.0.0.1"])
    sizes = []
    for names in (["a1", "s1"], ["a2", "a3", "s2", "s3"]):
        for name in names:
            authority.issue(name, "agent" if name.startswith("a") else "service")
        config = server_config(authority.directory)
        exports = config[config.index("exports: [") : config.index('"agent-a1" {')]
        service = config[config.index('user: "s1"') : config.index('user: "s2"') if "s2" in config else None]
        sizes.append((exports, service[: service.index("subscribe {")]))
    assert sizes[0] == sizes[1]


def test_connections_follow_the_fleet_unless_given(authority: CertificateAuthority) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("web")
    assert "max_connections: 10000\n" in server_config(authority.directory)
    assert "max_connections: 7\n" in server_config(authority.directory, max_connections=7)
    many = {f"a{number}": Grant.of("agent") for number in range(6000)}
    assert most_connections(many) == 12_000


@pytest.mark.slow
def test_a_server_takes_thousands_of_agents(authority: CertificateAuthority) -> None:
    authority.issue_server(["127.0.0.1"])
    for number in range(2000):
        authority.issue(f"a{number:05d}", "agent")
    config = server_config(authority.directory, store_dir=None)
    with EmbeddedServer(config=config, ready_timeout=100) as server:
        for name in ("a00000", "a01999"):
            with connect_to(server, authority.directory, name) as peer:
                assert not is_refused(peer, "publish", f"ll.progress.{name}.1")
                assert is_refused(peer, "publish", "ll.progress.a00001.1")


def test_a_certificate_file_that_is_damaged_is_named(authority: CertificateAuthority) -> None:
    authority.issue_server(["127.0.0.1"])
    (authority.directory / "notes.pem").write_text("not a certificate")
    with pytest.raises(InvalidOption, match=r"notes\.pem"):
        server_config(authority.directory)


def test_the_configuration_tells_the_name_behind_gateways(authority: CertificateAuthority) -> None:
    authority.issue_server(["nats.example.com"])
    assert "# Clients behind a QUIC gateway know this server as nats.lightlink.internal." in server_config(
        authority.directory
    )
    authority.issue_gateway(["edge.example.com"])
    told = server_config(authority.directory, server="gateway")
    assert "gateway.pem lacks the name nats.lightlink.internal; issue it again." in told
