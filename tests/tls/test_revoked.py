"""An identity is revoked on a running server: it is put out and stays out, and nobody else is disturbed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.certs import CertificateAuthority, remake_config, server_config
from lightlink.cli.certs import certs
from lightlink.cli.terminal.exits import Exit, run
from lightlink.commands import Agent, CommandManager
from lightlink.commands.agent.agent import Stage
from lightlink.errors import InvalidName, InvalidOption
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority.create(tmp_path / "certs")
    made.issue_server(["127.0.0.1"])
    for name, role in (("manager", "manager"), ("web", "client"), ("web.eu", "client"), ("press", "agent")):
        made.issue(name, role)
    return made


@pytest.fixture
def config(authority: CertificateAuthority, tmp_path: Path) -> Path:
    file = tmp_path / "nats.conf"
    file.write_text(server_config(authority.directory, store_dir=None))
    return file


def _copied(folder: Path, name: str) -> lightlink.TLS:
    """Return the files of an identity as somebody has them who stole them."""
    for suffix in (".pem", ".key"):
        file = folder.parent / f"{name}{suffix}"
        file.write_bytes((folder / f"{name}{suffix}").read_bytes())
        file.chmod(0o600)
    return lightlink.TLS(folder / "ca.pem", folder.parent / f"{name}.pem", folder.parent / f"{name}.key")


def test_who_is_revoked_is_put_out_at_once_while_commands_run(
    authority: CertificateAuthority, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = authority.directory
    stopped = threading.Event()
    done: list[int] = []
    lost: list[object] = []
    with (
        EmbeddedServer(config=config) as server,
        lightlink.connect(server.url, tls=tls_of(folder, "manager")) as client,
        CommandManager(client) as manager,
        lightlink.connect(server.url, tls=tls_of(folder, "web.eu")) as other,
        lightlink.connect(server.url, tls=tls_of(folder, "web"), on_error=lost.append, refusal_timeout=0) as stolen,
    ):
        agent = Agent("press", server.url, tls=tls_of(folder, "press"), refusal_timeout=0)
        agent.command("double")(lambda x: 2 * x)
        agent.start(timeout=30)
        copies = {name: _copied(folder, name) for name in ("web", "press")}

        def keep_sending() -> None:
            while not stopped.is_set():
                number = len(done)
                assert manager.send("press", "double", {"x": number}).result(30) == 2 * number
                done.append(number)

        sender = threading.Thread(target=keep_sending)
        sender.start()
        eventually(lambda: len(done) > 5)
        arguments = ["revoke", str(folder), "web", "--config", str(config), "--pid", str(server.pid)]
        assert run(certs, arguments) == Exit.DONE
        eventually(lambda: lost)
        eventually(lambda: stolen.status is lightlink.Status.CLOSED)
        with pytest.raises(lightlink.AuthenticationError):
            lightlink.connect(server.url, tls=copies["web"])
        before = len(done)
        eventually(lambda: len(done) > before + 5)
        stopped.set()
        sender.join(30)
        assert not sender.is_alive()
        other.flush()
        assert [client.status, other.status] == [lightlink.Status.CONNECTED] * 2
        # An agent too, with its account.
        assert run(certs, ["revoke", str(folder), "press", "--config", str(config), "--pid", str(server.pid)]) == 0
        eventually(lambda: agent.stage is Stage.STOPPED)
        with pytest.raises(lightlink.AuthenticationError):
            lightlink.connect(server.url, tls=copies["press"])
        agent.stop()


def test_a_revoked_name_is_not_issued_again_and_its_key_is_gone(authority: CertificateAuthority) -> None:
    info = authority.revoke("web")
    assert info.path == authority.directory / "revoked" / f"web.{info.serial:x}.pem"
    assert info.path.exists()
    assert not (authority.directory / "web.key").exists()
    assert [each.name for each in authority.revoked()] == ["web"]
    assert [each.name for each in authority.list()] == ["ca", "server", "manager", "press", "web.eu"]
    for force in (False, True):
        with pytest.raises(InvalidName, match="was revoked, and that certificate lasts until"):
            authority.issue("web", force=force)
    authority.issue("web-2")
    with pytest.raises(InvalidOption, match="no such file"):
        authority.revoke("web")
    with pytest.raises(InvalidOption, match="no such file"):
        authority.renew("web")


def test_a_new_authority_issues_what_the_old_revoked(authority: CertificateAuthority) -> None:
    authority.revoke("web")
    renewed = CertificateAuthority.create(authority.directory, force=True)
    assert renewed.revoked() == []
    assert renewed.issue("web").fault is None


def test_what_cannot_be_revoked_is_refused_and_stays(authority: CertificateAuthority) -> None:
    with pytest.raises(InvalidOption, match="is a server's"):
        authority.revoke("server")
    with pytest.raises(InvalidName):
        authority.revoke("../web")
    with pytest.raises(InvalidName):
        authority.revoke("ca")
    assert (authority.directory / "server.key").exists()


def test_without_a_server_to_tell_it_is_said_what_is_left_to_do(
    authority: CertificateAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(certs, ["revoke", str(authority.directory), "web"]) == Exit.DONE
    assert "until the server has its configuration made again" in capsys.readouterr().err


def test_a_configuration_is_made_again_with_its_settings(authority: CertificateAuthority, tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": 4333, "max_payload": 2048, "store_dir": tmp_path / "store"}
    file.write_text(server_config(authority.directory, **settings))
    file.chmod(0o640)
    authority.revoke("web")
    remake_config(file)
    assert file.read_text() == server_config(authority.directory, **settings)
    assert 'user: "web"' not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("listen: 4222\n", "was not made by"),
        ("# settings: {\n", "its line of settings is none"),
        ('# settings: {"a": 1}\n', "its line of settings is none"),
        ("# settings: 7\n", "its line of settings is none"),
    ],
)
def test_another_configuration_is_left_alone(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "nats.conf"
    file.write_text(text)
    with pytest.raises(InvalidOption, match=match):
        remake_config(file)
    assert file.read_text() == text
