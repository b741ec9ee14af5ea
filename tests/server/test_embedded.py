from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from helpers.pki import connect_to
from helpers.process import alive, run_python, script
from helpers.raw import RawPeer, read_info
from helpers.waiting import eventually

from lightlink.errors import InvalidOption, NotReady, ServerError
from lightlink.server import SERVER_VARIABLE, EmbeddedServer

if TYPE_CHECKING:
    from conftest import StartServer
    from nats.aio.client import Client

    from lightlink.certs import CertificateAuthority


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def store(server: EmbeddedServer, text: bytes) -> None:
    """Write a message that JetStream acknowledged."""

    async def work(nc: Client) -> None:
        js = nc.jetstream()
        await js.add_stream(name="KEPT", subjects=["kept"])
        await js.publish("kept", text)

    with RawPeer(server.url) as peer:
        peer.run(work)


def stored(server: EmbeddedServer) -> bytes | None:
    """Read the message that ``store`` wrote."""

    async def work(nc: Client) -> bytes | None:
        return (await nc.jetstream().get_msg("KEPT", seq=1)).data

    with RawPeer(server.url) as peer:
        return peer.run(work)


def streams(server: EmbeddedServer) -> int:
    async def work(nc: Client) -> int:
        return (await nc.jetstream().account_info()).streams

    with RawPeer(server.url) as peer:
        return peer.run(work)


# Start, reach, stop


def test_a_client_connects_as_soon_as_start_returns(fresh_server: StartServer) -> None:
    server = fresh_server()
    assert read_info(server.port)["jetstream"] is True
    assert server.running
    assert alive(server.pid)


def test_the_url_leads_a_client_to_a_working_jetstream(fresh_server: StartServer) -> None:
    server = fresh_server()
    assert server.url == f"nats://127.0.0.1:{server.port}"
    store(server, b"hello")
    assert stored(server) == b"hello"


def test_what_a_start_decides_is_refused_before_it(fresh_server: StartServer) -> None:
    server = EmbeddedServer()
    for attribute in ("url", "port", "pid", "store_dir", "log_file"):
        with pytest.raises(NotReady):
            getattr(server, attribute)
    assert not server.running


def test_name_and_jetstream_are_the_servers(fresh_server: StartServer) -> None:
    info = read_info(fresh_server(name="little", jetstream=False).port)
    assert info["server_name"] == "little"
    assert "jetstream" not in info


def test_a_wildcard_host_has_a_url_that_can_be_connected_to(fresh_server: StartServer) -> None:
    server = fresh_server(host="0.0.0.0")
    assert server.url == f"nats://127.0.0.1:{server.port}"
    assert read_info(server.port)["port"] == server.port


def test_start_and_stop_can_be_called_again(temporary: Path) -> None:
    server = EmbeddedServer()
    server.stop()
    try:
        pid = server.start().pid
        assert server.start().pid == pid
    finally:
        server.stop()
    server.stop()
    assert not alive(pid)
    assert not server.running
    assert list(temporary.iterdir()) == []


def test_the_temporary_store_goes_and_a_given_one_stays(temporary: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with EmbeddedServer() as first, EmbeddedServer(store_dir=mine) as second:
        assert temporary in first.store_dir.parents
        store(first, b"forgotten")
        store(second, b"kept")
    assert list(temporary.iterdir()) == []
    with EmbeddedServer(store_dir=str(mine)) as again:
        assert again.store_dir == mine
        assert stored(again) == b"kept"


def test_a_given_log_file_stays(tmp_path: Path) -> None:
    log_file = tmp_path / "nats.log"
    with EmbeddedServer(log_file=log_file) as server:
        assert server.log_file == log_file
    assert "Server is ready" in log_file.read_text()


def test_two_servers_run_side_by_side(fresh_server: StartServer) -> None:
    one, two = fresh_server(), fresh_server()
    assert one.port != two.port
    store(one, b"one")
    store(two, b"two")
    assert (stored(one), stored(two)) == (b"one", b"two")


def test_stop_kills_a_server_that_does_not_react(fresh_server: StartServer) -> None:
    server = fresh_server()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop(timeout=0.1)
    assert not alive(pid)


def test_stop_leaves_no_child_behind() -> None:
    result = run_python("""
        import os
        from lightlink.server import EmbeddedServer

        server = EmbeddedServer().start()
        server.kill()
        server.start()
        server.stop()
        try:
            print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("no child")
    """)
    assert (result.stdout, result.stderr) == ("no child\n", "")


# Again, on the same port


def test_kill_and_start_keep_port_and_data(fresh_server: StartServer) -> None:
    server = fresh_server()
    url, pid = server.url, server.pid
    store(server, b"survivor")
    server.kill()
    assert not alive(pid)
    assert server.url == url
    with pytest.raises(ConnectionRefusedError):
        read_info(server.port)
    with pytest.raises(NotReady):
        _ = server.pid
    server.kill()
    server.start()
    assert server.url == url
    assert server.pid != pid
    assert stored(server) == b"survivor"


def test_restart_keeps_port_and_data(fresh_server: StartServer) -> None:
    server = fresh_server()
    url, pid = server.url, server.pid
    store(server, b"survivor")
    server.restart()
    assert server.url == url
    assert not alive(pid)
    assert stored(server) == b"survivor"


def test_stop_and_start_keep_the_port_and_begin_with_nothing(fresh_server: StartServer) -> None:
    server = fresh_server()
    url = server.url
    store(server, b"forgotten")
    server.stop()
    server.start()
    assert server.url == url
    assert streams(server) == 0


def test_a_crashed_server_is_noticed_and_can_be_started_again(fresh_server: StartServer) -> None:
    server = fresh_server()
    store(server, b"survivor")
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.running)
    server.start()
    assert stored(server) == b"survivor"


def test_a_start_that_fails_after_kill_keeps_the_data(fresh_server: StartServer) -> None:
    server = fresh_server()
    store(server, b"survivor")
    server.kill()
    with socket.create_server(("127.0.0.1", server.port)), pytest.raises(ServerError, match="address already in use"):
        server.start()
    server.start()
    assert stored(server) == b"survivor"


# The configuration


def test_configuration_text_is_used_beside_the_arguments(fresh_server: StartServer, tmp_path: Path) -> None:
    text = 'port: 1, max_payload: 4096, authorization { user: "ann", password: "s3cret" }'
    server = fresh_server(config=text, store_dir=tmp_path)
    assert server.port != 1
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        RawPeer(server.url, user="ann", password="wrong", allow_reconnect=False)
    with RawPeer(server.url, user="ann", password="s3cret") as peer:
        assert peer.nc.max_payload == 4096
    assert "s3cret" not in repr(server)


def test_a_configuration_file_is_used_where_it_lies(fresh_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "limits.conf").write_text("max_payload: 4096\n")
    file = tmp_path / "nats.conf"
    file.write_text("include limits.conf\n")
    assert read_info(fresh_server(config=file).port)["max_payload"] == 4096


@pytest.mark.parametrize(
    "form",
    [
        'store_dir: "%s"',
        "store_dir %s",
        "store_dir = '%s'  # here",
        '"store_dir": "%s"',
        "max_mem: 1GB, store: %s, max_file: 1GB",
        "storedir: '%s'",
    ],
)
def test_a_configuration_may_name_the_store(form: str, fresh_server: StartServer, tmp_path: Path) -> None:
    store = tmp_path / "mine"
    file = tmp_path / "nats.conf"
    file.write_text(f'# settings: {{"store_dir": "not this"}}\njetstream {{\n  {form % store}\n}}\n')
    server = fresh_server(config=file)
    assert server.store_dir == store
    with RawPeer(server.url) as peer:
        peer.run(peer.nc.jetstream().add_stream(name="KEPT", subjects=["kept"]))
    assert (store / "jetstream" / "$G" / "streams" / "KEPT").is_dir()
    server.stop()
    assert store.is_dir()
    with pytest.raises(InvalidOption, match="named by the configuration as well"):
        fresh_server(config=file, store_dir=tmp_path / "other")


def test_extra_arguments_reach_the_command(fresh_server: StartServer) -> None:
    server = fresh_server(extra_args=["-D"])
    assert "[DBG]" in server.log_file.read_text()


def test_a_configuration_error_carries_the_servers_reason(temporary: Path) -> None:
    server = EmbeddedServer(config="authorization {")
    with pytest.raises(ServerError, match="Parse error") as caught:
        server.start()
    assert "Parse error" in str(caught.value).splitlines()[0]
    assert list(temporary.iterdir()) == []
    assert not server.running


def test_a_taken_port_is_an_error_that_says_so(fresh_server: StartServer) -> None:
    taken = fresh_server().port
    with pytest.raises(ServerError, match=f"{taken}.*address already in use"):
        EmbeddedServer(port=taken).start()


def test_a_log_file_that_cannot_be_written_is_an_error(temporary: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no-such-folder"):
        EmbeddedServer(log_file=tmp_path / "no-such-folder" / "log").start()
    assert list(temporary.iterdir()) == []


def test_a_server_that_never_gets_ready_is_an_error_and_ended(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    lines = ['[ "$1" = --version ] && echo v2.10.0 && exit', f"echo $$ > {started}", "exec sleep 60"]
    monkeypatch.setenv(SERVER_VARIABLE, str(script(tmp_path / "sleeper", *lines)))
    with pytest.raises(ServerError, match=r"not ready within 2 s: its log is empty"):
        EmbeddedServer(ready_timeout=2.0).start()
    assert not alive(int(started.read_text()))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"port": -1}, {"port": 65536}, {"port": "4222"}, {"port": None}, {"ready_timeout": 0}, {"ready_timeout": "1"}],
)
def test_impossible_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        EmbeddedServer(**options)


def test_a_server_with_tls_gets_ready(fresh_server: StartServer, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "cert").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = fresh_server(config=f'tls {{ cert_file: "{tmp_path}/cert", key_file: "{tmp_path}/key", verify: true }}')
    assert read_info(server.port)["tls_required"] is True


def test_a_certificate_directory_makes_a_server_with_mutual_tls(
    fresh_server: StartServer, authority: CertificateAuthority
) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("web")
    server = fresh_server(tls=authority.directory)
    assert server.url == f"tls://127.0.0.1:{server.port}"
    assert read_info(server.port)["tls_verify"] is True
    with connect_to(server, authority.directory, "web") as peer:
        peer.run(peer.nc.flush())
    authority.issue("late", "admin")
    with pytest.raises(nats.errors.Error):
        connect_to(server, authority.directory, "late", allow_reconnect=False)
    server.restart()
    with connect_to(server, authority.directory, "late") as peer:
        # JetStream is there, in the server's own folder.
        peer.run(peer.nc.jetstream().add_stream(name="KEPT", subjects=["kept"]))
    assert [path.name for path in server.store_dir.rglob("KEPT")] == ["KEPT"]


def test_an_unfit_certificate_directory_is_named_and_left_alone(
    temporary: Path, authority: CertificateAuthority, tmp_path: Path
) -> None:
    with pytest.raises(InvalidOption, match=str(tmp_path / "nowhere")):
        EmbeddedServer(tls=tmp_path / "nowhere").start()
    with pytest.raises(InvalidOption, match=r"server\.pem"):
        EmbeddedServer(tls=authority.directory).start()
    assert list(temporary.iterdir()) == []


def test_what_does_not_go_with_certificates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="config"):
        EmbeddedServer(tls=tmp_path, config="")
    with pytest.raises(InvalidOption, match="jetstream"):
        EmbeddedServer(tls=tmp_path, jetstream=False)
