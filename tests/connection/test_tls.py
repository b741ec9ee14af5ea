"""Connecting over TLS: who gets in, and what is said to whom does not. Real nats-servers, real files."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import tls_of
from helpers.process import run_python
from helpers.waiting import eventually

import lightlink
from lightlink.certs import CertificateAuthority, server_config
from lightlink.connection.dialing.tls import with_inbox_prefix
from lightlink.options import ConnectOptions
from lightlink.protocol.permissions import inbox_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from helpers.pki import LinkAs, SetClock

    from lightlink.server import EmbeddedServer

# The most that a refusal may take: connect_timeout, and a bit for giving up.
LIMIT = 30.0
NOBODY = "tls://127.0.0.1:1"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A certificate directory of another authority, with the same names."""
    authority = CertificateAuthority.create(tmp_path / "stranger")
    authority.issue_server(["127.0.0.1"])
    authority.issue("web")
    return authority.directory


def refused(url: str, tls: lightlink.TLS, error: type[lightlink.ConnectError] = lightlink.AuthenticationError) -> str:
    """Try to connect, and return why that failed; the server is named with each reason."""
    with pytest.raises(error) as caught:
        lightlink.connect(url, tls=tls, connect_timeout=LIMIT)
    ((server, reason),) = caught.value.tried
    assert server == url
    assert reason in str(caught.value)
    return reason


def echo(url: str, tls: lightlink.TLS, name: str = "user-service") -> lightlink.Service:
    service = lightlink.Service(name, url, tls=tls)
    service.register("echo", lambda **given: given)
    return service


# Getting in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["tls", "nats"])
def test_a_client_calls_a_service_each_with_a_certificate(
    secured: EmbeddedServer, identities: Path, scheme: str
) -> None:
    assert secured.url.startswith("tls://127.0.0.1:")
    with (
        echo(secured.url, tls_of(identities, "user-service")),
        lightlink.connect(secured.url.replace("tls", scheme), tls=tls_of(identities, "web")) as client,
    ):
        assert client.call("user-service", "echo", {"a": 1}) == {"a": 1}


def test_the_environment_names_the_files(
    secured: EmbeddedServer, identities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"CA": "ca.pem", "CERT": "web.pem", "KEY": "web.key"}
    for name, file in files.items():
        monkeypatch.setenv(f"LIGHTLINK_TLS_{name}", str(identities / file))
    monkeypatch.setenv("LIGHTLINK_URL", secured.url)
    with lightlink.connect() as client:
        client.flush()
        assert client.options.inbox_prefix == "_INBOX.web"


def test_a_nats_context_names_the_files(
    secured: EmbeddedServer, identities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    files = {"ca": "ca.pem", "cert": "web.pem", "key": "web.key"}
    content = {name: str(identities / file) for name, file in files.items()} | {"url": secured.url}
    (folder / "secure.json").write_text(json.dumps(content))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with lightlink.connect(context="secure") as client:
        client.flush()


def test_a_tls_url_without_files_uses_the_systems_authorities(
    identities: Path, fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = f'cert_file: "{identities}/server.pem", key_file: "{identities}/server.key"'
    server = fresh_server(config=f"tls {{ {files} }}")
    url = server.url.replace("nats://", "tls://")
    with pytest.raises(lightlink.AuthenticationError, match=r"no authority that this system trusts.*tls\.ca"):
        lightlink.connect(url)
    # Where OpenSSL looks for the system's.
    monkeypatch.setenv("SSL_CERT_FILE", str(identities / "ca.pem"))
    with lightlink.connect(url) as client:
        client.flush()


@pytest.mark.parametrize("way", ["the scheme", "the files"])
def test_nothing_is_said_to_a_server_without_the_tls_asked_for(
    server: EmbeddedServer, identities: Path, way: str
) -> None:
    before = server.log_file.read_text().count("authentication error")
    url, tls = (server.url, tls_of(identities, "web"))
    if way == "the scheme":
        url, tls = url.replace("nats://", "tls://"), lightlink.TLS(ca=identities / "ca.pem")
    assert refused(url, tls) == "the server does not offer TLS"
    assert server.log_file.read_text().count("authentication error") == before


def test_the_name_to_verify_can_be_another_than_in_the_url(secured: EmbeddedServer, identities: Path) -> None:
    url = secured.url.replace("127.0.0.1", "localhost")
    files = tls_of(identities, "web")
    tls = lightlink.TLS(ca=files.ca, cert=files.cert, key=files.key, hostname="127.0.0.1")
    with lightlink.connect(url, tls=tls) as client:
        client.flush()


def test_a_program_without_tls_loads_nothing_of_it(url: str) -> None:
    code = """
        import sys, lightlink
        lightlink.connect(sys.argv[1]).close()
        print([name for name in sys.modules if name.startswith(("cryptography", "lightlink.certs"))])
    """
    assert run_python(code, url).stdout == "[]\n"


def test_a_forked_child_opens_a_connection_of_its_own(secured: EmbeddedServer, identities: Path) -> None:
    code = """
        import os, sys, lightlink
        files = dict(zip(("ca", "cert", "key"), sys.argv[2:]))
        client = lightlink.connect(sys.argv[1], tls=lightlink.TLS(**files))
        child = os.fork()
        client.publish("events.fork", {"child": child == 0})
        client.flush()
        if child == 0:
            client.close()
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        client.close()
    """
    tls = tls_of(identities, "web")
    assert run_python(code, secured.url, tls.ca, tls.cert, tls.key).stdout == "0\n"


# The inbox ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web", "web.eu", "user-service", "agent-a", "ops"])
def test_the_inbox_prefix_follows_the_identity(link_as: LinkAs, name: str) -> None:
    assert link_as(name).options.inbox_prefix == inbox_prefix(name)


def test_an_inbox_prefix_that_is_given_wins(link_as: LinkAs) -> None:
    # An administrator may listen anywhere.
    assert link_as("ops", inbox_prefix="_INBOX.other").options.inbox_prefix == "_INBOX.other"
    with pytest.raises(lightlink.PermissionDenied, match=r"subscribe to '_INBOX\.ops"):
        link_as("web", inbox_prefix="_INBOX.ops").call("user-service", "echo")


def test_a_certificate_without_a_name_leaves_the_prefix_alone(identities: Path) -> None:
    # That of an authority has none.
    tls = lightlink.TLS(cert=identities / "ca.pem", key=identities / "ca.key")
    assert with_inbox_prefix(ConnectOptions(tls=tls)).inbox_prefix is None


# Whom the server does not accept --------------------------------------------------------------------------------------
# With TLS 1.3 these surface in several ways, at random; so each is tried several times.

TRIES = range(5)


def test_another_authoritys_certificate_is_refused(secured: EmbeddedServer, identities: Path, stranger: Path) -> None:
    theirs = tls_of(stranger, "web")
    tls = lightlink.TLS(ca=identities / "ca.pem", cert=theirs.cert, key=theirs.key)
    reasons = {refused(secured.url, tls) for _ in TRIES}
    meaning = "it is of an authority that the server does not know (unknown ca)"
    assert reasons == {f"the server refused our certificate {theirs.cert}: {meaning}"}


def test_a_client_without_a_certificate_is_refused(secured: EmbeddedServer, identities: Path) -> None:
    reasons = {refused(secured.url, tls_of(identities, None)) for _ in TRIES}
    assert reasons == {
        "the server wants a certificate of ours, and there is none (tls.cert): certificate required",
    }


@pytest.mark.parametrize("known", [["web"], ["agent-a"], []], ids=["a client", "an agent", "nobody"])
def test_an_identity_unknown_to_the_server_is_refused_by_name(
    fresh_server: StartServer, authority: CertificateAuthority, known: list[str]
) -> None:
    authority.issue_server(["127.0.0.1"])
    for name in known:
        authority.issue(name, "agent" if name.startswith("agent") else "client")
    server = fresh_server(tls=authority.directory)
    authority.issue("late", "admin")
    reasons = {refused(server.url, tls_of(authority.directory, "late")) for _ in TRIES}
    cert = authority.directory / "late.pem"
    assert reasons == {
        f"our certificate {cert} is that of 'late', whom the server does not know: Authorization Violation"
    }


def test_a_server_clock_that_expires_a_certificate_is_told(
    secured: EmbeddedServer, identities: Path, tmp_path: Path, set_clock: SetClock
) -> None:
    authority = CertificateAuthority.load(shutil.copytree(identities, tmp_path / "certs"))
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    set_clock(now + datetime.timedelta(days=30))
    authority.issue("web", days=7, force=True)
    # Our own clock stays ahead, so that the files pass our own check.
    reason = refused(secured.url, tls_of(authority.directory, "web"))
    assert str(authority.directory / "web.pem") in reason
    assert "expired, or is not valid yet, by the server's clock" in reason


def test_a_short_time_to_connect_is_kept_and_the_reason_said(secured: EmbeddedServer, identities: Path) -> None:
    for _ in TRIES:
        with pytest.raises(lightlink.AuthenticationError, match="the server wants a certificate of ours"):
            lightlink.connect(secured.url, tls=tls_of(identities, None), connect_timeout=3)


def test_a_server_silent_in_the_handshake_is_given_up_in_time(identities: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        url = f"tls://127.0.0.1:{listener.getsockname()[1]}"
        failing = threads.submit(lightlink.connect, url, tls=tls_of(identities, "web"), connect_timeout=0.5)
        with listener.accept()[0] as connection:
            connection.sendall(b'INFO {"tls_required": true}\r\n')
            error = failing.exception(30)
    assert isinstance(error, lightlink.ConnectError)
    assert "no NATS server answered within 0." in str(error)


def test_a_full_server_says_so_and_is_no_refusal(identities: Path, fresh_server: StartServer) -> None:
    config = server_config(identities, store_dir=None, max_connections=1)
    server = fresh_server(config=config)
    url = server.url.replace("nats://", "tls://")

    def first() -> lightlink.Client | None:
        # The look whether the server is ready was a client too, and it notices a bit later that it has left.
        try:
            return lightlink.connect(url, tls=tls_of(identities, "web"))
        except lightlink.ConnectError:
            return None

    taken = eventually(first, timeout=30)
    assert taken is not None
    with taken:
        for _ in TRIES:
            reason = refused(url, tls_of(identities, "web"), lightlink.ConnectError)
            assert reason == "maximum connections exceeded"


# Which server we do not accept ----------------------------------------------------------------------------------------


def test_a_server_of_another_authority_is_not_accepted(
    secured: EmbeddedServer, identities: Path, stranger: Path
) -> None:
    ours = tls_of(identities, "web")
    reason = refused(secured.url, lightlink.TLS(ca=stranger / "ca.pem", cert=ours.cert, key=ours.key))
    assert reason.startswith(f"the server's certificate is of no authority in {stranger / 'ca.pem'}: ")


def test_a_server_of_another_host_is_not_accepted(secured: EmbeddedServer, identities: Path) -> None:
    reason = refused(secured.url.replace("127.0.0.1", "localhost"), tls_of(identities, "web"))
    assert "is for another host: Hostname mismatch, certificate is not valid for 'localhost'" in reason
    files = tls_of(identities, "web")
    other = lightlink.TLS(ca=files.ca, cert=files.cert, key=files.key, hostname="nats.example")
    assert "'nats.example'" in refused(secured.url, other)


@pytest.mark.parametrize(("offset", "words"), [(-30, "has expired"), (30, "is not valid yet")])
def test_a_server_with_an_outdated_certificate_is_refused(
    fresh_server: StartServer, tmp_path: Path, set_clock: SetClock, offset: int, words: str
) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    set_clock(now - datetime.timedelta(days=60))
    authority = CertificateAuthority.create(tmp_path / "certs")
    authority.issue("web")
    set_clock(now + datetime.timedelta(days=offset))
    authority.issue_server(["127.0.0.1"], days=7)
    config = server_config(authority.directory, store_dir=None)
    set_clock(now)
    server = fresh_server(config=config)
    reason = refused(server.url.replace("nats://", "tls://"), tls_of(authority.directory, "web"))
    assert reason.startswith(f"the server's certificate {words}")


# Files that are not fit -----------------------------------------------------------------------------------------------
# These are found before anything is sent, so there need not be a server.


@pytest.fixture
def files() -> Iterator[dict[str, Path]]:
    """Files of a client, in a directory that other users may enter."""
    with tempfile.TemporaryDirectory() as folder:
        authority = CertificateAuthority.create(Path(folder) / "certs")
        authority.issue("web")
        authority.issue("other")
        authority.issue_server(["127.0.0.1"])
        Path(folder).chmod(0o755)
        authority.directory.chmod(0o755)
        names = {"ca": "ca.pem", "cert": "web.pem", "key": "web.key"}
        yield {part: authority.directory / name for part, name in names.items()}


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


def unfit(files: dict[str, Any], part: str) -> str:
    """Try to connect with files of which one is not fit; returns what is said of it."""
    reason = refused(NOBODY, lightlink.TLS(**files))
    assert str(files[part]) in reason
    assert f"tls.{part}" in reason
    return reason


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_file_that_is_missing_is_named(files: dict[str, Path], part: str) -> None:
    files[part].unlink()
    assert "no such file" in unfit(files, part)


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_file_that_cannot_be_read_is_named(files: dict[str, Path], part: str) -> None:
    if os.geteuid() == 0 and part != "key":
        os.chown(files["key"], 65534, -1)
    files[part].chmod(0)
    with as_nobody():
        assert "Permission denied" in unfit(files, part)


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
@pytest.mark.parametrize(
    ("content", "words"),
    [("hello", "is not PEM"), ("-----BEGIN X-----\nYQ==\n-----END X-----\n", "no ")],
    ids=["no PEM", "other PEM"],
)
def test_a_file_that_does_not_hold_what_it_should_is_named(
    files: dict[str, Path], part: str, content: str, words: str
) -> None:
    files[part].write_text(content)
    assert words in unfit(files, part)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_a_key_that_others_may_access_is_refused(files: dict[str, Path], mode: int) -> None:
    files["key"].chmod(mode)
    assert f"other users may access it (mode {mode:04o}); run chmod 600" in unfit(files, "key")


def test_a_key_that_does_not_match_is_named_with_its_certificate(files: dict[str, Path]) -> None:
    files["key"] = files["key"].with_name("other.key")
    assert f"does not match the certificate {files['cert']} of 'web'" in unfit(files, "key")


@pytest.mark.parametrize(("offset", "words"), [(-30, "expired on 20"), (30, "is not valid before 20")])
def test_a_certificate_of_ours_that_is_out_of_date_is_named(
    tmp_path: Path, set_clock: SetClock, offset: int, words: str
) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    set_clock(now - datetime.timedelta(days=60))
    authority = CertificateAuthority.create(tmp_path / "certs")
    set_clock(now + datetime.timedelta(days=offset))
    authority.issue("web", days=7)
    set_clock(now)
    folder = authority.directory
    files = {"ca": folder / "ca.pem", "cert": folder / "web.pem", "key": folder / "web.key"}
    assert words in unfit(files, "cert")


def test_a_server_s_certificate_is_no_client_s(files: dict[str, Path]) -> None:
    files |= {"cert": files["ca"].with_name("server.pem"), "key": files["ca"].with_name("server.key")}
    assert "is not the certificate of a client" in unfit(files, "cert")


def test_half_a_pair_is_refused_at_once(files: dict[str, Path]) -> None:
    with pytest.raises(lightlink.InvalidOption, match="cert is given without key"):
        lightlink.TLS(cert=files["cert"])


def test_a_certificate_that_ends_soon_is_a_warning_in_the_log(
    secured: EmbeddedServer, identities: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(identities, tmp_path / "certs")
    CertificateAuthority.load(folder).issue("web", days=20, force=True)
    with caplog.at_level(logging.WARNING), lightlink.connect(secured.url, tls=tls_of(folder, "web")) as client:
        client.flush()
    assert caplog.text.count(f"the certificate {folder / 'web.pem'} expires in ") == 1


# Secrets --------------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_repr_a_log_or_an_error(
    secured: EmbeddedServer, files: dict[str, Any], identities: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = tls_of(identities, "web")
    secrets = ["pass-word-1", "to-ken-1", *key_lines(files["key"]), *key_lines(good.key)]
    shown: list[Any] = []

    def attempt(url: str, **options: Any) -> None:
        with pytest.raises(lightlink.ConnectError) as caught:
            lightlink.connect(url, connect_timeout=2, **options)
        shown.extend((caught.value, caught.value.__cause__, ConnectOptions.resolve(url, **options)))

    with caplog.at_level(logging.DEBUG):
        attempt(secured.url, tls=lightlink.TLS(**files))
        attempt(secured.url, tls=good, user="web", password="pass-word-1")
        attempt(secured.url.replace("tls://", "tls://web:pass-word-1@"), tls=good)
        attempt(NOBODY, tls=good, token="to-ken-1")
        files["key"].write_text(files["key"].read_text().replace("\nM", "\nX"))
        attempt(secured.url, tls=lightlink.TLS(**files))
        with lightlink.connect(secured.url, tls=good, name="secretive") as client:
            shown += [client, client.options, client.options.tls]
            with pytest.raises(lightlink.PermissionDenied) as denied:
                client.subscribe("not.for.web")
            shown.append(denied.value)
    text = "\n".join([caplog.text, *(f"{each!r} {each}" for each in shown)])
    assert "secretive" in text
    assert [secret for secret in secrets if secret in text] == []


def key_lines(path: Path | None) -> list[str]:
    assert path is not None
    lines = [line for line in path.read_text().splitlines() if not line.startswith("-----")]
    assert lines
    return lines


def test_git_ignores_every_key_and_certificate() -> None:
    root = Path(__file__).resolve().parents[2]
    names = ["certs/ca.key", "certs/ca.pem", "certs/web.key", "certs/anything", "web.key", "samples/web.pem"]
    done = subprocess.run(["git", "check-ignore", *names], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.split() == names
    kept = subprocess.run(["git", "check-ignore", "certs/README.md"], cwd=root, capture_output=True, check=False)
    assert kept.returncode == 1
