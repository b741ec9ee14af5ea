"""Files of a TLS client that are not fit: each fault has its reason, and names its file."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.pki import openssl

from lightlink.certs import CertificateAuthority, check_client_files, identity_of
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.pki import SetClock

TODAY = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def files(authority: CertificateAuthority) -> dict[str, Path]:
    """The files of a client that are as they should be."""
    authority.issue("web")
    folder = authority.directory
    return {"ca": folder / "ca.pem", "cert": folder / "web.pem", "key": folder / "web.key"}


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Give root's rights up for a while, if these are root's: nothing is unreadable for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def fault(files: dict[str, Path], **replaced: Path | None) -> str:
    """Return what is said against files; it names the file that was replaced."""
    with pytest.raises(InvalidOption) as caught:
        check_client_files(**{**files, **replaced})
    for path in replaced.values():
        assert path is None or str(path) in str(caught.value)
    return str(caught.value)


def test_fit_files_come_back_as_what_the_certificate_says(files: dict[str, Path]) -> None:
    info = check_client_files(**files)
    assert info is not None
    assert (info.name, info.role, info.path, info.warning) == ("web", "client", files["cert"], None)


def test_a_ca_alone_is_checked_too(files: dict[str, Path]) -> None:
    assert check_client_files(files["ca"]) is None
    assert check_client_files() is None


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_file_that_is_missing_or_none_is_named(files: dict[str, Path], part: str, tmp_path: Path) -> None:
    assert "no such file" in fault(files, **{part: tmp_path / "nowhere.pem"})
    assert "not a regular file" in fault(files, **{part: tmp_path})
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    assert "not a regular file" in fault(files, **{part: fifo})
    large = tmp_path / "large"
    large.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + bytes(2 * 1024 * 1024))
    large.chmod(0o600)
    assert "larger than 1048576 bytes" in fault(files, **{part: large})


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_file_that_cannot_be_read_is_named(files: dict[str, Path], part: str) -> None:
    # Not below tmp_path, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copies = {name: Path(shutil.copy(path, folder)) for name, path in files.items()}
        copies[part].chmod(0)
        with as_nobody():
            assert "Permission denied" in fault(copies, **{part: copies[part]})


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o666])
def test_a_key_that_other_users_may_access_is_refused(files: dict[str, Path], mode: int) -> None:
    files["key"].chmod(mode)
    assert f"mode {mode:04o}" in fault(files, key=files["key"])


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_for_its_owner_and_group_is_taken(files: dict[str, Path], mode: int) -> None:
    files["key"].chmod(mode)
    check_client_files(**files)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_file_that_is_not_pem_is_named(files: dict[str, Path], part: str, tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(range(256))):
        assert "is not PEM" in fault(files, **{part: write(tmp_path / "x.pem", content)})
    begin = b"-----BEGIN PRIVATE KEY-----" if part == "key" else b"-----BEGIN CERTIFICATE-----"
    end = begin.replace(b"BEGIN", b"END")
    assert "damaged" in fault(files, **{part: write(tmp_path / "x.pem", begin + b"\nAAAA\n" + end)})
    assert "damaged" in fault(files, **{part: write(tmp_path / "x.pem", files[part].read_bytes()[:100])})


def test_files_in_each_other_s_place_are_named(files: dict[str, Path]) -> None:
    assert "PEM, but holds no certificate" in fault(files, cert=write(files["cert"], files["key"].read_bytes()))


def test_a_certificate_in_place_of_the_key_is_no_key(files: dict[str, Path], tmp_path: Path) -> None:
    assert "no private key" in fault(files, key=write(tmp_path / "x.key", files["cert"].read_bytes()))


def test_certificate_and_key_may_share_a_file_with_the_chain(files: dict[str, Path], tmp_path: Path) -> None:
    both = write(tmp_path / "both.pem", b"".join(files[part].read_bytes() for part in ("key", "cert", "ca")))
    info = check_client_files(files["ca"], both, both)
    assert info is not None
    assert info.name == "web"


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(files: dict[str, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", files["key"], "-aes256", "-passout", "pass:secret", "-out", locked)
    locked.chmod(0o600)
    assert "encrypted" in fault(files, key=locked)


def test_a_key_of_another_certificate_is_refused(files: dict[str, Path], authority: CertificateAuthority) -> None:
    authority.issue("other")
    message = fault(files, key=authority.directory / "other.key")
    assert "does not match" in message
    assert str(files["cert"]) in message


def test_what_is_said_about_a_key_holds_nothing_of_it(files: dict[str, Path]) -> None:
    lines = files["key"].read_text().splitlines()
    damaged = write(files["key"], "\n".join([lines[0], lines[1][:-6] + "??", *lines[2:]]).encode())
    with pytest.raises(InvalidOption) as caught:
        check_client_files(**{**files, "key": damaged})
    assert lines[1][:12] not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("days", "reason"), [(11, "expired on 2026-06-11"), (-2, "is not valid before 2026-06-01")])
def test_a_certificate_that_is_not_valid_now_is_refused(
    tmp_path: Path, set_clock: SetClock, days: int, reason: str
) -> None:
    set_clock(TODAY - 300 * DAY)
    authority = CertificateAuthority.create(tmp_path / "certs")
    set_clock(TODAY)
    info = authority.issue("web", days=10)
    set_clock(TODAY + days * DAY)
    files = {"ca": authority.directory / "ca.pem", "cert": info.path, "key": info.path.with_suffix(".key")}
    assert reason in fault(files, cert=info.path)


def test_an_authority_that_is_not_valid_now_is_refused(tmp_path: Path, set_clock: SetClock) -> None:
    set_clock(TODAY)
    old = CertificateAuthority.create(tmp_path / "old", days=10)
    set_clock(TODAY + 11 * DAY)
    ca = old.directory / "ca.pem"
    assert "expired on 2026-06-11" in fault({}, ca=ca)
    # Of several, as while one replaces the other, one must be valid.
    new = CertificateAuthority.create(tmp_path / "new")
    both = write(tmp_path / "both.pem", ca.read_bytes() + (new.directory / "ca.pem").read_bytes())
    assert check_client_files(both) is None


def test_a_certificate_about_to_end_is_logged(
    authority: CertificateAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    info = authority.issue("web", days=3)
    with caplog.at_level(logging.WARNING, "lightlink"):
        check_client_files(None, info.path, info.path.with_suffix(".key"))
    assert "web.pem expires in" in caplog.text


def test_a_servers_or_authoritys_certificate_is_no_clients(authority: CertificateAuthority) -> None:
    authority.issue_server(["localhost"])
    for name in ("server", "ca"):
        paths = {part: authority.directory / f"{name}.{suffix}" for part, suffix in (("cert", "pem"), ("key", "key"))}
        assert "not the certificate of a client" in fault(paths, cert=paths["cert"])


def test_a_client_s_certificate_is_none_of_an_authority(files: dict[str, Path]) -> None:
    assert "no certificate of an authority" in fault(files, ca=files["cert"])


def test_a_certificate_without_its_key_is_refused(files: dict[str, Path]) -> None:
    assert "without key" in fault({}, cert=files["cert"])
    assert "without cert" in fault({}, key=files["key"])


def test_the_identity_is_the_dns_name_of_the_certificate(authority: CertificateAuthority, tmp_path: Path) -> None:
    assert identity_of(authority.issue("web.eu").path) == "web.eu"
    assert identity_of(authority.directory / "ca.pem") is None
    with pytest.raises(InvalidOption, match="no such file"):
        identity_of(tmp_path / "nowhere.pem")


def test_certificates_of_other_makers_are_taken_too(tmp_path: Path) -> None:
    cert, key = tmp_path / "x.pem", tmp_path / "x.key"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "90"),
        *("-subj", "/CN=My Client", "-addext", "subjectAltName=DNS:Client_7,DNS:second", "-addext", "nsComment=any"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
    )
    key.chmod(0o600)
    info = check_client_files(cert, cert, key)
    assert info is not None
    assert (info.name, info.role) == ("Client_7", None)
