"""Listing and renewing certificates."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.pki import openssl

from lightlink.certs import CertificateAuthority, check_client_files, server_config
from lightlink.errors import InvalidName, InvalidOption

if TYPE_CHECKING:
    from helpers.pki import SetClock

TODAY = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_list_holds_ca_servers_and_identities_in_this_order(authority: CertificateAuthority) -> None:
    authority.issue("zoe", "admin")
    authority.issue("adam", "agent")
    authority.issue_server(["localhost"])
    found = CertificateAuthority.load(authority.directory).list()
    assert [(info.name, info.kind, info.role) for info in found] == [
        ("ca", "ca", None),
        ("server", "server", None),
        ("adam", "client", "agent"),
        ("zoe", "client", "admin"),
    ]
    assert [info.warning for info in found] == [None] * 4


@pytest.mark.parametrize(
    ("days", "warning"),
    [
        (31, None),
        (30, None),
        (29, "expires in 29 days"),
        (1, "expires in 1 day,"),
        (0, "expires in 0 days"),
        (-1, "expired on 2026-06-01 12:00 UTC"),
    ],
)
def test_a_warning_comes_from_30_days_before_the_end(
    tmp_path: Path, set_clock: SetClock, days: int, warning: str | None
) -> None:
    set_clock(TODAY - 60 * DAY)
    authority = CertificateAuthority.create(tmp_path / "certs")
    authority.issue("web", days=60)
    set_clock(TODAY - days * DAY)
    info = authority.list()[1]
    assert info.warning is None if warning is None else warning in str(info.warning)
    assert [each.name for each in authority.expiring()] == (["web"] if warning else [])
    assert [each.name for each in authority.expiring(days=5)] == (["web"] if days < 5 else [])


def test_renewing_keeps_key_name_hosts_and_grant(authority: CertificateAuthority) -> None:
    server = authority.issue_server(["localhost", "::1"], days=5)
    client = authority.issue("web", "service", publish=["events.>"], days=5)
    keys = {path: path.read_bytes() for path in authority.directory.glob("*.key")}
    for old in (server, client):
        new = authority.renew(old.name)
        assert new.serial != old.serial
        assert new.days_left >= 364
        assert (new.kind, new.hosts, new.grant) == (old.kind, old.hosts, old.grant)
    assert {path: path.read_bytes() for path in authority.directory.glob("*.key")} == keys
    openssl("verify", "-x509_strict", "-CAfile", authority.directory / "ca.pem", client.path, server.path)


def test_renewing_works_where_the_key_has_gone_to_its_owner(authority: CertificateAuthority, tmp_path: Path) -> None:
    info = authority.issue("web", days=5)
    key = (authority.directory / "web.key").rename(tmp_path / "web.key")
    authority.renew("web")
    assert check_client_files(None, info.path, key) == authority.list()[1]


def test_renewing_can_make_a_new_key(authority: CertificateAuthority) -> None:
    info = authority.issue("web")
    key = authority.directory / "web.key"
    before = key.read_bytes()
    authority.renew("web", new_key=True)
    assert key.read_bytes() != before
    assert mode(key) == 0o600
    check_client_files(None, info.path, key)


def test_only_what_this_authority_issued_can_be_renewed(authority: CertificateAuthority, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "other")
    (authority.directory / "web.pem").write_bytes(other.issue("web", "admin").path.read_bytes())
    with pytest.raises(InvalidOption, match="not issued by the CA"):
        authority.renew("web")
    with pytest.raises(InvalidOption, match="no such file"):
        authority.renew("nobody")
    for name in ("ca", "../web"):
        with pytest.raises(InvalidName):
            authority.renew(name)


def test_what_another_authority_signed_grants_nothing(authority: CertificateAuthority, tmp_path: Path) -> None:
    authority.issue_server(["localhost"])
    other = CertificateAuthority.create(tmp_path / "other", name="LightLink CA")
    (authority.directory / "web.pem").write_bytes(other.issue("web", "admin").path.read_bytes())
    info = authority.list()[2]
    assert (info.name, info.grant) == ("web", None)
    assert "not issued by the CA" in str(info.warning)
    with pytest.raises(InvalidOption, match=r"web\.pem.*not issued by the CA"):
        server_config(authority.directory)


def test_a_copy_under_another_name_is_no_second_identity(authority: CertificateAuthority) -> None:
    authority.issue_server(["localhost"])
    info = authority.issue("web")
    (authority.directory / "copy.pem").write_bytes(info.path.read_bytes())
    with pytest.raises(InvalidOption, match=r"copy\.pem.*is for web"):
        server_config(authority.directory)


def test_a_new_authority_makes_the_old_certificates_worthless(authority: CertificateAuthority) -> None:
    authority.issue("web")
    replaced = CertificateAuthority.create(authority.directory, force=True)
    assert "not issued by the CA" in str(replaced.list()[1].warning)
