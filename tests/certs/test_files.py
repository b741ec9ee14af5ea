"""The files of a certificate authority: private, whole, and never lost."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lightlink.certs import CertificateAuthority, check_client_files
from lightlink.errors import InvalidName, InvalidOption

if TYPE_CHECKING:
    pass

TODAY = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_private_and_nothing_temporary_is_left(authority: CertificateAuthority) -> None:
    authority.issue_server(["localhost"])
    authority.issue("web")
    assert mode(authority.directory) == 0o700
    names = sorted(path.name for path in authority.directory.iterdir())
    assert names == ["ca.key", "ca.pem", "server.key", "server.pem", "web.key", "web.pem"]
    assert {mode(path) for path in authority.directory.glob("*.key")} == {0o600}
    assert {mode(path) for path in authority.directory.glob("*.pem")} == {0o644}


def test_a_key_was_never_readable_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0)
    try:
        CertificateAuthority.create(tmp_path / "certs")
    finally:
        os.umask(before)
    assert seen == [0o600, 0o644]


def test_nothing_is_overwritten_without_force(authority: CertificateAuthority) -> None:
    authority.issue_server(["localhost"])
    authority.issue("web")
    before = {path: path.read_bytes() for path in authority.directory.iterdir()}
    for attempt in (
        lambda: CertificateAuthority.create(authority.directory),
        lambda: authority.issue_server(["localhost"]),
        lambda: authority.issue("web"),
    ):
        with pytest.raises(InvalidOption, match="force"):
            attempt()
    assert {path: path.read_bytes() for path in authority.directory.iterdir()} == before


@pytest.mark.parametrize("left", ["web.key", "web.pem"])
def test_half_a_pair_is_not_overwritten_either(authority: CertificateAuthority, left: str) -> None:
    authority.issue("web")
    other = {"web.key": "web.pem", "web.pem": "web.key"}[left]
    (authority.directory / other).unlink()
    with pytest.raises(InvalidOption, match=left):
        authority.issue("web")
    assert not (authority.directory / other).exists()


def test_force_replaces_a_pair(authority: CertificateAuthority) -> None:
    first = authority.issue("web")
    second = authority.issue("web", "manager", force=True)
    assert first.serial != second.serial
    assert second.role == "manager"
    assert {mode(path) for path in authority.directory.glob("*.key")} == {0o600}
    check_client_files(authority.directory / "ca.pem", second.path, authority.directory / "web.key")


def test_force_does_not_turn_a_server_into_a_client(authority: CertificateAuthority) -> None:
    authority.issue_server(["localhost"], name="edge")
    with pytest.raises(InvalidName, match="taken"):
        authority.issue("edge", force=True)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.issue("web")
    before = {path: path.read_bytes() for path in authority.directory.iterdir()}

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InvalidOption, match="No space left"):
        authority.issue("web", force=True)
    assert {path: path.read_bytes() for path in authority.directory.iterdir()} == before


def test_a_directory_that_others_share_is_not_taken_over(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "something.txt").write_text("theirs")
    with pytest.raises(InvalidOption, match="open to other users"):
        CertificateAuthority.create(shared)
    assert mode(shared) == 0o755
    assert [path.name for path in shared.iterdir()] == ["something.txt"]


def test_a_directory_with_nothing_but_a_readme_becomes_private(tmp_path: Path) -> None:
    prepared = tmp_path / "certs"
    prepared.mkdir(mode=0o755)
    (prepared / "README.md").write_text("how to")
    CertificateAuthority.create(prepared)
    assert mode(prepared) == 0o700


def test_a_directory_that_is_a_file_or_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidOption, match="is a file"):
        CertificateAuthority.create(tmp_path / "file")
    with pytest.raises(InvalidOption, match=r"nowhere/ca\.pem.*no such file"):
        CertificateAuthority.load(tmp_path / "nowhere")


def test_no_key_shows_in_a_repr_or_an_error(authority: CertificateAuthority) -> None:
    key = authority.directory / "ca.key"
    secret = key.read_text().splitlines()[1]
    assert secret not in repr(authority)
    key.write_text(key.read_text().replace(secret, secret[:-4] + "!!!!"))
    with pytest.raises(InvalidOption, match="damaged") as caught:
        authority.issue("web")
    assert secret[:16] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_ca_key_must_be_there_private_and_the_right_one(authority: CertificateAuthority, tmp_path: Path) -> None:
    key = authority.directory / "ca.key"
    other = CertificateAuthority.create(tmp_path / "other")
    key.chmod(0o604)
    with pytest.raises(InvalidOption, match="mode 0604"):
        authority.issue("web")
    key.write_bytes((other.directory / "ca.key").read_bytes())
    key.chmod(0o600)
    with pytest.raises(InvalidOption, match="does not belong"):
        authority.issue("web")
    key.unlink()
    with pytest.raises(InvalidOption, match="no such file"):
        authority.issue("web")
    assert [info.name for info in CertificateAuthority.load(authority.directory).list()] == ["ca"]
