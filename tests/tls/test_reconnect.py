"""Reconnecting over TLS: it verifies as connecting does, takes renewed files, and gives up what cannot heal."""

from __future__ import annotations

import datetime
import logging
import queue
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors
import pytest
from helpers.pki import connect_to, tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.certs import CertificateAuthority, server_config
from lightlink.cli.terminal.exits import Exit
from lightlink.commands import Agent, CommandManager
from lightlink.connection.connection import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartProxy, StartPython, StartServer
    from helpers.pki import SetClock
    from helpers.proxy import TcpProxy
    from helpers.raw import RawPeer

    from lightlink.server import EmbeddedServer

FAST: dict[str, Any] = {"reconnect_wait": 0.05, "reconnect_wait_max": 0.1, "refusal_timeout": 0.0}
FILES = ("ca.pem", "math.pem", "math.key")


@pytest.fixture
def folder(authority: CertificateAuthority) -> Path:
    """A certificate directory of the test's own with a server and two identities."""
    authority.issue_server(["127.0.0.1"])
    authority.issue("web")
    authority.issue("ops", "admin")
    return authority.directory


@pytest.fixture
def errors() -> queue.SimpleQueue[Exception]:
    """What the error hook was told."""
    return queue.SimpleQueue()


@pytest.fixture
def connect(
    folder: Path, errors: queue.SimpleQueue[Exception], caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., lightlink.Client]]:
    """Connect as web: ``connect(server)``; attempts to reconnect are in ``caplog``."""
    clients: list[lightlink.Client] = []
    caplog.set_level(logging.DEBUG, "lightlink")

    def to(server: EmbeddedServer | TcpProxy, **options: Any) -> lightlink.Client:
        settings: dict[str, Any] = (
            {"tls": tls_of(folder, "web"), "name": "web", "on_error": errors.put} | FAST | options
        )
        clients.append(lightlink.connect(server.url.replace("nats://", "tls://"), **settings))
        return clients[-1]

    yield to
    for client in clients:
        client.close()


def attempts(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many attempts to reconnect have failed."""
    return sum("reconnecting: " in record.getMessage() for record in caplog.records)


def instead(server: EmbeddedServer, fresh_server: StartServer, **options: Any) -> EmbeddedServer:
    """Put another server in the place of one."""
    server.stop()
    return fresh_server(port=server.port, **options)


def given_up(client: lightlink.Client, errors: queue.SimpleQueue[Exception]) -> str:
    """Wait until a client has given up, and return the reason that its hook, and each later call, is told."""
    error = errors.get(timeout=30)
    assert isinstance(error, lightlink.AuthenticationError)
    eventually(lambda: client.status is Status.CLOSED)
    uses: list[Callable[[], object]] = [
        lambda: client.publish("events.a", 1),
        lambda: client.call("math", "add"),
        lambda: client.submit("math", "add").result(30),
        lambda: client.get_state("key"),
        client.flush,
        lambda: client.subscribe("events.a"),
    ]
    for use in uses:
        with pytest.raises(lightlink.AuthenticationError) as caught:
            use()
        assert caught.value.tried == error.tried
    ((_, reason),) = error.tried
    return reason


def test_a_client_comes_back_over_tls(
    fresh_server: StartServer, folder: Path, connect: Callable[..., lightlink.Client]
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    server.restart()
    assert client.wait_connected(20)
    client.flush(20)


def test_a_request_under_way_in_the_outage_does_not_hinder_it(
    fresh_server: StartServer, folder: Path, connect: Callable[..., lightlink.Client]
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    server.kill()
    eventually(lambda: client.status is Status.RECONNECTING)
    client.publish("events.kept", {"n": 1})
    server.start()
    client.flush(20)


# What cannot heal -----------------------------------------------------------------------------------------------------


def test_a_server_of_another_authority_is_given_up(
    fresh_server: StartServer,
    folder: Path,
    tmp_path: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    other = CertificateAuthority.create(tmp_path / "other")
    other.issue_server(["127.0.0.1"])
    instead(server, fresh_server, tls=other.directory)
    assert f"the server's certificate is of no authority in {folder / 'ca.pem'}" in given_up(client, errors)


def test_a_server_of_another_host_is_given_up(
    fresh_server: StartServer,
    folder: Path,
    authority: CertificateAuthority,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    authority.issue_server(["nats.example"], force=True)
    instead(server, fresh_server, tls=folder)
    assert "is for another host: IP address mismatch" in given_up(client, errors)


def test_a_server_that_speaks_no_tls_any_more_is_given_up(
    fresh_server: StartServer,
    folder: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    instead(server, fresh_server)
    assert given_up(client, errors) == "the server does not offer TLS"


def test_a_server_that_knows_the_identity_no_more_is_given_up(
    fresh_server: StartServer,
    folder: Path,
    tmp_path: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    without = shutil.copytree(folder, tmp_path / "without")
    (without / "web.pem").unlink()
    instead(server, fresh_server, tls=without)
    reason = given_up(client, errors)
    assert reason == (
        f"our certificate {folder / 'web.pem'} is that of 'web', whom the server does not know: Authorization Violation"
    )


def test_a_server_that_accepts_our_authority_no_more_is_given_up(
    fresh_server: StartServer,
    folder: Path,
    tmp_path: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    other = CertificateAuthority.create(tmp_path / "other")
    config = server_config(folder, store_dir=None).replace(
        f'ca_file: "{folder}/ca.pem"', f'ca_file: "{other.directory}/ca.pem"'
    )
    instead(server, fresh_server, config=config)
    reason = given_up(client, errors)
    assert reason.startswith(f"the server refused our certificate {folder / 'web.pem'}: ")
    assert reason.endswith("(unknown ca)")


def test_a_certificate_expired_while_connected_is_given_up(
    fresh_server: StartServer,
    tmp_path: Path,
    set_clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
    errors: queue.SimpleQueue[Exception],
) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    with monkeypatch.context():
        set_clock(now - datetime.timedelta(days=2))
        authority = CertificateAuthority.create(tmp_path / "certs")
        authority.issue_server(["127.0.0.1"])
        end = now + datetime.timedelta(seconds=3)
        set_clock(end - datetime.timedelta(days=1))
        assert authority.issue("web", days=1).not_after == end
    set_clock(now)  # within which the files pass our own check
    server = fresh_server(tls=authority.directory)
    tls = tls_of(authority.directory, "web")
    with lightlink.connect(server.url, tls=tls, on_error=errors.put, **FAST) as client:
        eventually(lambda: datetime.datetime.now(datetime.timezone.utc) > end, timeout=30)
        set_clock(end + datetime.timedelta(seconds=1))
        server.restart()
        first = errors.get(timeout=30)
        # The file as it is read for the next connection; then the server's own word.
        assert isinstance(first, lightlink.InvalidOption)
        assert f"'{authority.directory / 'web.pem'}': expired on 20" in str(first)
        reason = given_up(client, errors)
    assert reason.startswith(f"the server refused our certificate {authority.directory / 'web.pem'}: it has expired")


@pytest.mark.parametrize("kind", ["service", "agent"])
def test_a_program_that_is_refused_for_good_ends_with_the_reason(
    fresh_server: StartServer, authority: CertificateAuthority, tmp_path: Path, kind: str
) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("manager", "manager")
    without = shutil.copytree(authority.directory, tmp_path / "without")
    authority.issue("one", kind)
    server = fresh_server(tls=authority.directory)
    tls = tls_of(authority.directory, "one")
    with lightlink.connect(server.url, tls=tls_of(authority.directory, "manager")) as client, CommandManager(client):
        program: Any = Agent("one", server.url, tls=tls, **FAST)
        if kind == "service":
            program = lightlink.Service("one", server.url, tls=tls, **FAST)
        program.start()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(program.run)
        instead(server, fresh_server, tls=without)
        error = running.exception(40)
    assert isinstance(error, lightlink.AuthenticationError)
    assert "is that of 'one', whom the server does not know" in str(error)


def test_a_run_refused_for_good_ends_as_not_connected(
    fresh_server: StartServer, folder: Path, authority: CertificateAuthority, tmp_path: Path, python: StartPython
) -> None:
    without = shutil.copytree(folder, tmp_path / "without")
    authority.issue("math", "service")
    server = fresh_server(tls=folder)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lightlink.cli import main; sys.exit(main())"
    files = [f"--tls-{part}={folder / name}" for part, name in zip(("ca", "cert", "key"), FILES, strict=True)]
    (tmp_path / "served.py").write_text("import lightlink\nservice = lightlink.Service('math', refusal_timeout=0)\n")
    process = python(code, tmp_path, "run", "served:service", f"--url={server.url}", *files)
    process.wait_line("serving math on ")
    instead(server, fresh_server, tls=without)
    done = process.wait()
    assert done.returncode == Exit.NOT_CONNECTED
    assert "error: could not authenticate with NATS" in done.stderr.splitlines()[-1]


# What can -------------------------------------------------------------------------------------------------------------


def exchange(authority: CertificateAuthority) -> None:
    """Replace the authority and all it has issued, in their files."""
    new = CertificateAuthority.create(authority.directory, force=True)
    new.issue_server(["127.0.0.1"], force=True)
    new.issue("web", force=True)
    new.issue("ops", "admin", force=True)


def test_renewed_files_count_at_the_next_reconnect(
    fresh_server: StartServer,
    folder: Path,
    authority: CertificateAuthority,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    server.stop()
    exchange(authority)  # a client with the old files would neither accept the server nor be accepted
    server.start()
    assert client.wait_connected(20)
    client.flush(20)
    assert errors.empty()


def test_files_named_from_the_current_folder_are_found_again(
    fresh_server: StartServer,
    folder: Path,
    tmp_path: Path,
    authority: CertificateAuthority,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = fresh_server(tls=folder)
    monkeypatch.chdir(folder)
    client = connect(server, tls=lightlink.TLS(ca="ca.pem", cert="web.pem", key="web.key"))
    monkeypatch.chdir(tmp_path)
    server.stop()
    exchange(authority)
    server.start()
    assert client.wait_connected(20)
    client.flush(20)
    assert errors.empty()


def test_renewed_files_heal_a_refused_client(
    fresh_server: StartServer,
    folder: Path,
    tmp_path: Path,
    connect: Callable[..., lightlink.Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server, reconnect_wait=2.0, reconnect_wait_max=2.0)
    theirs = shutil.copytree(folder, tmp_path / "theirs")
    renewed = CertificateAuthority.load(theirs)
    exchange(renewed)
    instead(server, fresh_server, tls=theirs)
    eventually(lambda: attempts(caplog) > 0, timeout=30)
    for name in ("ca.pem", "web.key", "web.pem"):
        shutil.copy(theirs / name, folder / name)
    assert client.wait_connected(30)
    client.flush(20)


def test_a_renewed_certificate_alone_counts(
    fresh_server: StartServer, folder: Path, authority: CertificateAuthority, connect: Callable[..., lightlink.Client]
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    authority.renew("web")
    authority.renew("server", new_key=True)
    server.restart()
    assert client.wait_connected(20)
    client.flush(20)


def test_files_become_unfit_are_reported_and_the_last_good_used(
    fresh_server: StartServer,
    folder: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
) -> None:
    server = fresh_server(tls=folder)
    client = connect(server)
    (folder / "web.key").chmod(0o644)
    server.kill()
    eventually(lambda: client.status is Status.RECONNECTING)
    server.start()
    assert client.wait_connected(20)
    client.flush(20)
    error = errors.get(timeout=30)
    assert isinstance(error, lightlink.InvalidOption)
    assert str(folder / "web.key") in str(error)
    assert "chmod 600" in str(error)


def test_a_server_that_is_full_is_no_refusal(
    fresh_server: StartServer,
    proxy: StartProxy,
    folder: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = fresh_server(tls=folder)
    between = proxy(server.url)
    client = connect(between)
    between.refuse()
    between.cut()
    # In its place comes one with room for a single client, which is taken.
    full = instead(server, fresh_server, config=server_config(folder, store_dir=None, max_connections=1))

    def first() -> RawPeer | None:
        # The look whether the server is ready was a client too, and it notices a bit later that it has left.
        try:
            return connect_to(full, folder, "ops", allow_reconnect=False)
        except (OSError, nats.errors.Error):
            return None

    taken = eventually(first, timeout=30)
    assert taken is not None
    with taken:
        before = attempts(caplog)
        between.accept()
        eventually(lambda: attempts(caplog) > before + 5, timeout=30)
    assert client.wait_connected(20)
    client.flush(20)
    assert errors.empty()


def test_handshakes_that_break_off_are_no_refusal(
    fresh_server: StartServer,
    proxy: StartProxy,
    folder: Path,
    connect: Callable[..., lightlink.Client],
    errors: queue.SimpleQueue[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = fresh_server(tls=folder)
    between = proxy(server.url)
    client = connect(between)
    between.pause()
    between.cut()
    for _ in range(4):
        # Each attempt ends in the middle, before or after INFO.
        before = attempts(caplog)
        eventually(lambda: between.connections > 0, timeout=30)
        between.cut()
        eventually(lambda: attempts(caplog) > before, timeout=30)  # noqa: B023 - called at once
    between.resume()
    assert client.wait_connected(20)
    client.flush(20)
    assert errors.empty()
