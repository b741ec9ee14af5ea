"""``lightlink certs``."""

from __future__ import annotations

import json
import signal
import stat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

from lightlink.certs import CertificateAuthority, server_config
from lightlink.cli.certs import certs
from lightlink.cli.terminal.exits import Exit, run
from lightlink.protocol.edge import INNER_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Certs(Protocol):
    def __call__(self, *arguments: object) -> Result: ...


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Certs:
    def call(*arguments: object) -> Result:
        code = run(certs, [str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call


def test_from_nothing_to_a_configuration(command: Certs, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    made = command("init", folder, "--host", "localhost", "--host", "127.0.0.1", "--json")
    assert made.code == 0
    assert [(each["name"], each["kind"], each["hosts"]) for each in made.data] == [
        ("ca", "ca", []),
        ("server", "server", ["localhost", INNER_NAME, "127.0.0.1"]),
    ]
    assert command("issue", folder, "user-service", "--role", "service", "--publish", "events.user.>").code == 0
    assert command("issue", folder, "web").code == 0
    config = command("server-config", folder, "--port", 4333, "--max-payload", 2048)
    assert (config.code, config.err) == (0, "")
    assert config.out == server_config(folder, port=4333, max_payload=2048)
    assert 'user: "user-service"' in config.out
    assert stat.S_IMODE((folder / "web.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", [("--host", "a b"), ("--host", "localhost", "--days", "0")])
def test_init_with_a_slip_makes_and_replaces_nothing(
    command: Certs, tmp_path: Path, authority: CertificateAuthority, wrong: tuple[str, ...]
) -> None:
    there = {path.name: path.read_bytes() for path in authority.directory.iterdir()}
    assert command("init", authority.directory, "--force", *wrong).code == Exit.USAGE
    assert {path.name: path.read_bytes() for path in authority.directory.iterdir()} == there

    folder = tmp_path / "fresh"
    assert command("init", folder, *wrong).code == Exit.USAGE
    assert command("init", folder, "--host", "localhost").code == 0


def test_everything_a_grant_can_hold_has_an_option(command: Certs, authority: CertificateAuthority) -> None:
    options = [
        "--role",
        "client",
        "--publish",
        "a.>",
        "--publish",
        "b",
        "--subscribe",
        "c",
        "--call",
        "math",
        "--state",
    ]
    options += ["--state-bucket", "more", "--files", "--files-bucket", "other", "--days", "40", "--json"]
    (made,) = command("issue", authority.directory, "web", *options).data
    assert made["publish"] == ["a.>", "b"]
    assert made["subscribe"] == ["c"]
    assert made["calls"] == ["math"]
    assert made["state"] == ["light_link_state", "more"]
    assert made["files"] == ["light_link_files", "other"]
    assert made["days_left"] in (39, 40)
    assert made["role"] == "client"


def test_a_host_makes_a_server_certificate(command: Certs, authority: CertificateAuthority) -> None:
    (made,) = command("issue", authority.directory, "edge", "--host", "edge.example.com", "--json").data
    assert (made["kind"], made["hosts"]) == ("server", ["edge.example.com", INNER_NAME])


def test_a_gateway_never_gets_the_inner_name(command: Certs, authority: CertificateAuthority) -> None:
    folder = authority.directory
    (made,) = command("issue", folder, "edge", "--role", "gateway", "--host", "edge.example.com", "--json").data
    assert (made["kind"], made["hosts"]) == ("server", ["edge.example.com"])
    assert command("issue", folder, "edge2", "--role", "gateway").code == Exit.USAGE
    for host in (INNER_NAME, "*.lightlink.internal"):
        refused = command("issue", folder, "rogue", "--role", "gateway", "--host", host)
        assert refused.code == Exit.USAGE
        assert "which no gateway may have" in refused.err


def test_the_list_shows_names_roles_and_warnings(command: Certs, authority: CertificateAuthority) -> None:
    authority.issue("user-service", "service", publish=["events.user.>"])
    authority.issue("web", days=5)
    shown = command("list", authority.directory)
    assert shown.code == 0
    for part in ("user-service", "service", "events.user.>", "web"):
        assert part in shown.out
    assert shown.err.startswith(f"warning: {authority.directory / 'web.pem'} expires in")
    assert len(shown.err.splitlines()) == 1
    data = {each["name"]: each for each in command("list", authority.directory, "--json").data}
    assert data["user-service"]["warning"] is None
    assert "expires in" in data["web"]["warning"]
    assert data["web"]["path"] == str(authority.directory / "web.pem")


def test_what_expires_is_renewed_at_once(command: Certs, authority: CertificateAuthority) -> None:
    authority.issue("web", days=5)
    authority.issue("old", "manager", days=200)
    renewed = command("renew", authority.directory, "--expiring", "--json")
    assert [(each["name"], each["warning"]) for each in renewed.data] == [("web", None)]
    assert command("renew", authority.directory, "--expiring").out == ""
    assert [each["role"] for each in command("renew", authority.directory, "old", "web", "--json").data] == [
        "manager",
        "client",
    ]


def test_many_names_are_issued_at_once(command: Certs, authority: CertificateAuthority) -> None:
    made = command("issue", authority.directory, "a1", "a2", "a3", "--role", "agent", "--json").data
    assert [(each["name"], each["role"]) for each in made] == [(name, "agent") for name in ("a1", "a2", "a3")]


@pytest.mark.parametrize("names", [["web", "nobody"], ["nobody", "web"], ["gone", "web"]])
def test_one_wrong_name_keeps_nobody_in(
    command: Certs, authority: CertificateAuthority, python: StartPython, tmp_path: Path, names: list[str]
) -> None:
    authority.issue_server(["localhost"])
    for name in ("web", "gone", "stays"):
        authority.issue(name)
    config = tmp_path / "nats.conf"
    config.write_text(server_config(authority.directory))
    authority.revoke("gone")  # by a command that ended before the server was told
    # Whoever runs the tests under nohup has every child ignore the signal.
    server = python("import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); print('ready'); signal.pause()")
    server.wait_line("ready")
    ended = command("revoke", authority.directory, *names, "--config", config, "--pid", server.pid, "--json")
    assert server.wait().returncode == -signal.SIGHUP
    assert [each["name"] for each in ended.data] == [name for name in names if name != "nobody"]
    assert ended.code == (Exit.USAGE if "nobody" in names else Exit.DONE)
    assert ("nobody.pem" in ended.err) is ("nobody" in names)
    assert '"web"' not in config.read_text()
    assert '"gone"' not in config.read_text()
    assert '"stays"' in config.read_text()


def test_names_beside_one_that_cannot_be_are_issued(command: Certs, authority: CertificateAuthority) -> None:
    authority.issue("web")
    made = command("issue", authority.directory, "a1", "web", "Web", "a2", "a1", "--json")
    assert [each["name"] for each in made.data] == ["a1", "a2"]
    assert made.code == Exit.USAGE
    assert [line.split(":")[0] for line in made.err.splitlines()] == ["error", "error"]
    assert command("renew", authority.directory, "a1", "a3", "--json").data[0]["name"] == "a1"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["init"], "force"),
        (["issue", "web"], "force"),
        (["issue", "Web"], "upper-case"),
        (["issue", "new", "--publish", ">"], "event subject"),
        (["issue", "new", "--role", "agent", "--state"], "fixed"),
        (["issue", "new", "--role", "root"], "root"),
        (["issue", "new", "--days", "0"], "days"),
        (["issue", "new", "--host", "a b"], "host"),
        (["add", "new", "--config", "nats.conf"], "--pid"),
        (["add", "new", "--config", "/nowhere/nats.conf", "--pid", "1"], "cannot be read"),
        (["renew"], "--expiring"),
        (["renew", "nobody"], "no such file"),
        (["server-config"], "server certificate"),
    ],
)
def test_an_error_is_one_line_and_not_a_traceback(
    command: Certs, authority: CertificateAuthority, arguments: list[str], problem: str
) -> None:
    authority.issue("web")
    before = sorted(authority.directory.iterdir())
    failed = command(arguments[0], authority.directory, *arguments[1:])
    assert failed.code != 0
    assert failed.out == ""
    assert failed.err.startswith("error: ")
    assert len(failed.err.splitlines()) == 1
    assert problem in failed.err
    assert sorted(authority.directory.iterdir()) == before


def test_force_replaces(command: Certs, authority: CertificateAuthority) -> None:
    authority.issue("web")
    assert command("issue", authority.directory, "web", "--role", "admin", "--force").code == 0
    assert authority.list()[1].role == "admin"
    assert command("init", authority.directory, "--force").code == 0
    assert "not issued by the CA" in command("list", authority.directory).err
