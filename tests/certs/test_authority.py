"""What a certificate authority issues."""

from __future__ import annotations

import datetime
import logging
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers.pki import openssl

from lightlink.certs import CertificateAuthority
from lightlink.certs.certificate import utc_now
from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol.permissions import Grant

if TYPE_CHECKING:
    from conftest import StartPython
    from helpers.pki import SetClock

TODAY = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_openssl_accepts_what_is_issued(authority: CertificateAuthority) -> None:
    server = authority.issue_server(["localhost", "nats.example.com", "127.0.0.1", "::1"])
    client = authority.issue("user-service", "service")
    ca = authority.directory / "ca.pem"
    openssl("verify", "-x509_strict", "-CAfile", ca, ca)
    openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, server.path)
    openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca, client.path)
    openssl("verify", "-verify_hostname", "nats.example.com", "-CAfile", ca, server.path)
    openssl("verify", "-verify_ip", "::1", "-CAfile", ca, server.path)
    text = openssl("x509", "-in", client.path, "-noout", "-text")
    for part in ("CN = user-service", "DNS:user-service", "prime256v1", "CA:FALSE", "TLS Web Client Authentication"):
        assert part in text
    assert "LightLink role=service" in text
    key = authority.directory / "user-service.key"
    assert openssl("pkey", "-in", key, "-pubout") == openssl("x509", "-in", client.path, "-noout", "-pubkey")


def test_a_client_cannot_pass_for_a_server_nor_vice_versa(authority: CertificateAuthority) -> None:
    for info, purpose in ((authority.issue_server(["localhost"]), "sslclient"), (authority.issue("web"), "sslserver")):
        trusted = ["-CAfile", str(authority.directory / "ca.pem")]
        arguments = ["openssl", "verify", "-purpose", purpose, *trusted, str(info.path)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert "unsuitable certificate purpose" in done.stderr.lower() + done.stdout.lower()


@pytest.mark.parametrize("name", ["ca", "server", "web"])
def test_every_certificate_carries_the_extensions_of_its_kind(authority: CertificateAuthority, name: str) -> None:
    authority.issue_server(["localhost"])
    authority.issue("web")
    extensions = read(authority.directory / f"{name}.pem").extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert usage.critical
    assert constraints.value.ca == usage.value.key_cert_sign == usage.value.crl_sign == (name == "ca")
    assert usage.value.digital_signature == (name != "ca")
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    if name == "ca":
        assert constraints.value.path_length == 0
        return
    ca = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == ca != identifier
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    assert [*extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [purpose]


def test_serial_numbers_are_random(authority: CertificateAuthority) -> None:
    serials = [authority.info.serial, *(authority.issue(f"client-{number}").serial for number in range(3))]
    assert len(set(serials)) == 4
    assert min(serials) > 2**64


def test_a_certificate_is_valid_from_a_little_before_now(authority: CertificateAuthority) -> None:
    # Each in a second of its own, which may be the next.
    apart = authority.issue("web").not_before - authority.info.not_before
    assert datetime.timedelta(0) <= apart < datetime.timedelta(minutes=5)
    assert authority.info.not_before <= utc_now() - HOUR + datetime.timedelta(minutes=1)


def test_a_leaf_does_not_outlive_its_authority(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = CertificateAuthority.create(tmp_path / "certs", days=100)
    with caplog.at_level(logging.WARNING, "lightlink"):
        assert authority.issue("web", days=365).not_after == authority.info.not_after
    assert "ends with its CA" in caplog.text
    assert authority.issue("short", days=1).not_after < authority.info.not_after


def test_an_authority_that_has_ended_issues_nothing(tmp_path: Path, set_clock: SetClock) -> None:
    set_clock(TODAY)
    authority = CertificateAuthority.create(tmp_path / "certs", days=10)
    set_clock(TODAY + 11 * DAY)
    with pytest.raises(InvalidOption, match=r"CA certificate.*expired on 2026-06-11"):
        authority.issue("web")


def test_a_grant_comes_back_from_the_certificate_as_it_was_given(authority: CertificateAuthority) -> None:
    info = authority.issue(
        "a", "service", publish=["a=b.c", "x.*.>"], subscribe=["s;t,u"], calls=["*"], state=True, files=["one", "two"]
    )
    expected = Grant("service", ("a=b.c", "x.*.>"), ("s;t,u",), ("*",), ("light_link_state",), ("one", "two"))
    assert info.grant == expected
    assert CertificateAuthority.load(authority.directory).list()[1].grant == expected


@pytest.mark.parametrize("size", [1, 60, 100, 120, 250, 300, 9000])
def test_a_grant_of_any_size_comes_back(authority: CertificateAuthority, size: int) -> None:
    subjects = ["e." + "x" * size]
    info = authority.issue(
        "a", publish=subjects[:1] if size < 2000 else [f"e.{n}.{'x' * 80}" for n in range(size // 90)]
    )
    assert info.grant is not None
    openssl("x509", "-in", info.path, "-noout", "-text")
    assert authority.list()[1].grant == info.grant


def test_a_grant_too_large_for_a_handshake_is_refused(authority: CertificateAuthority) -> None:
    with pytest.raises(InvalidOption, match=r"grant.*16384"):
        authority.issue("a", publish=[f"e.{number}.{'x' * 100}" for number in range(200)])
    assert not (authority.directory / "a.key").exists()


@pytest.mark.parametrize(
    "host", ["", "a b", "-a", "a..b", "*", "*.com", "a.*.com", "300.1.1.1", "ex_ample.com", "é.de"]
)
def test_a_host_that_is_none_is_refused(authority: CertificateAuthority, host: str) -> None:
    with pytest.raises(InvalidName, match="host"):
        authority.issue_server([host])


def test_a_server_needs_hosts_in_a_list(authority: CertificateAuthority) -> None:
    bad: list[Any] = [[], "localhost"]
    for hosts in bad:
        with pytest.raises(InvalidOption, match="list"):
            authority.issue_server(hosts)


def test_hosts_may_be_names_addresses_and_wildcards(authority: CertificateAuthority) -> None:
    info = authority.issue_server(["LocalHost", "*.nats.example.com", "10.0.0.1", "::1", "localhost"])
    assert info.hosts == ("localhost", "*.nats.example.com", "nats.lightlink.internal", "10.0.0.1", "::1")


@pytest.mark.parametrize("days", [0, -1, 40_000, 1.5, True, "7"])
def test_a_lifetime_that_cannot_be_is_refused(authority: CertificateAuthority, days: Any) -> None:
    with pytest.raises(InvalidOption, match="days"):
        authority.issue("web", days=days)


@pytest.mark.parametrize("name", ["ca", "server", "User", "a/../../b", ""])
def test_a_name_that_cannot_be_leaves_no_file(authority: CertificateAuthority, name: str) -> None:
    before = sorted(authority.directory.parent.rglob("*"))
    with pytest.raises(InvalidName):
        authority.issue(name)
    assert sorted(authority.directory.parent.rglob("*")) == before


def test_the_library_is_imported_without_cryptography(python: StartPython) -> None:
    # It takes longer to import than all the rest; only those who use TLS files pay for it.
    done = python("import sys, lightlink, lightlink.protocol.permissions; print('cryptography' in sys.modules)").wait()
    assert done.stdout == "False\n", done.stderr
