"""``lightlink services``, ``lightlink doctor``, and ``lightlink call`` without a method."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython, StartServer


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Cli(Protocol):
    def __call__(self, *args: str) -> Result: ...


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[Cli]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("LIGHTLINK_URL", url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        code = main(args)
        return Result(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    made = lightlink.Service(prefix, url, version="1.2.3", description="sums")

    @made.rpc
    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    with made:
        yield made


def test_services_are_listed_in_a_table(cli: Cli, service: lightlink.Service, prefix: str) -> None:

    def listed() -> list[str]:
        code, out, _ = cli("services")
        assert code == Exit.DONE
        return [line for line in out.splitlines() if prefix in line]

    [row] = eventually(listed)  # of those that answer soon after each other
    assert "1.2.3" in row


@pytest.mark.parametrize("command", ["services", "call"])
def test_the_methods_of_one_are_shown(cli: Cli, service: lightlink.Service, prefix: str, command: str) -> None:
    code, out, _ = cli(command, prefix, "--timeout=30")
    assert code == Exit.DONE
    assert "add(*, a: int, b: int = 2) -> int" in out
    assert "Add two numbers." in out


def test_as_json_each_service_is_a_line(cli: Cli, service: lightlink.Service, prefix: str) -> None:
    code, out, _ = cli("services", prefix, "--json", "--timeout=30")
    told = json.loads(out)
    assert code == Exit.DONE
    assert (told["name"], [each["id"] for each in told["instances"]]) == (prefix, [service.instance])
    assert told["methods"][0]["arguments"]["required"] == ["a"]
    assert json.loads(cli("call", prefix, "--json", "--timeout=30").out)["digest"] == told["digest"]


def test_a_service_that_is_not_there_is_an_exit_code(cli: Cli, prefix: str) -> None:
    assert cli("services", prefix).code == Exit.NOT_NOW
    assert cli("call", prefix).code == Exit.NOT_NOW


def test_it_waits_for_a_service_and_says_what_was_missing(cli: Cli, service: lightlink.Service, prefix: str) -> None:
    assert cli("services", prefix, "--wait", "30", "--method", "add", "--require", ">=1.2").code == Exit.DONE
    code, _, err = cli("services", prefix, "--wait", "2", "--method", "sub")
    assert code == Exit.NOT_NOW
    assert "missing sub" in err


def test_watching_for_a_program_prints_json(python: StartPython, url: str, service: lightlink.Service) -> None:
    code = "import sys; from lightlink.cli import main; sys.exit(main())"
    process = python(code, "services", service.name, "--watch", "--json", f"--url={url}")
    assert json.loads(process.wait_line(""))["name"] == service.name
    process.signal(signal.SIGINT)
    assert process.wait().returncode == Exit.INTERRUPTED


@pytest.mark.parametrize("args", [["--wait", "1"], ["math", "--method", "add"], ["math", "--require", ">=1"]])
def test_options_that_do_not_go_together_are_refused(cli: Cli, args: list[str]) -> None:
    assert cli("services", *args).code == Exit.USAGE


def test_watching_shows_it_until_it_is_interrupted(
    python: StartPython, url: str, service: lightlink.Service, prefix: str
) -> None:
    code = "import sys; from lightlink.cli import main; sys.exit(main())"
    process = python(code, "services", prefix, "--watch", f"--url={url}")
    process.wait_line(f"{prefix} 1.2.3")
    process.signal(signal.SIGINT)
    assert process.wait().returncode == Exit.INTERRUPTED


# Doctor ---------------------------------------------------------------------------------------------------------------


def test_a_healthy_server_is_found_healthy(cli: Cli, fresh_server: StartServer) -> None:
    server = fresh_server()
    code, out, _ = cli("doctor", f"--url={server.url}")
    assert code == Exit.DONE
    assert all(line.startswith("  ok  ") for line in out.splitlines()), out
    for word in (
        "versions: lightlink",
        server.url,
        "nats-server",
        "account $G",
        "agrees",
        "JetStream",
        "LIGHTLINK_COMMANDS",
    ):
        assert word in out


def test_streams_of_managers_are_found_as_they_should_be(cli: Cli, fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url) as client, lightlink.CommandManager(client):
        code, out, _ = cli("doctor", f"--url={server.url}")
    assert code == Exit.DONE
    assert out.count("is as it should be") == 5
    with lightlink.connect(server.url) as client, Orchestrator(client):
        eventually(lambda: "  ok  runs: are carried out" in cli("doctor", f"--url={server.url}")[1])
    code, out, _ = cli("doctor", f"--url={server.url}")
    assert code == Exit.DONE
    assert out.count("is as it should be") == 7
    assert "note  runs: are carried out by nobody now: start `lightlink runs work`" in out


def test_a_stream_whose_configuration_differs_is_bad(cli: Cli, fresh_server: StartServer) -> None:
    server = fresh_server()
    from helpers.raw import RawPeer

    with RawPeer(server.url) as peer:
        peer.run(peer.nc.jetstream().add_stream(name="LIGHTLINK_COMMANDS", subjects=["ll.commands.>"]))
        code, out, _ = cli("doctor", f"--url={server.url}")
    assert code == Exit.FAILED
    assert " BAD  LIGHTLINK_COMMANDS: its configuration differs: subjects is ['ll.commands.>']" in out
    assert "1 of 12 are bad" in out


def test_rights_and_a_missing_jetstream_are_told(cli: Cli, fresh_server: StartServer) -> None:
    server = fresh_server(
        jetstream=False,
        config="""
            authorization { users: [ { user: ada, password: secret, permissions: {
                publish: ["math.>", "$SYS.REQ.USER.INFO", "$JS.>"], subscribe: ["_INBOX.>"] } } ] }
        """,
    )
    code, out, _ = cli("doctor", f"--url={server.url}", "--user=ada", "--password=secret")
    assert code == Exit.DONE
    assert "identity: ada in account $G; may publish " in out
    assert "math.>" in out
    assert "note  JetStream: state, files and commands do not work" in out


def test_an_unreachable_server_is_the_error_of_every_command(cli: Cli) -> None:
    code, out, err = cli("doctor", "--url=nats://127.0.0.1:1")
    assert code == Exit.NOT_CONNECTED
    assert out.startswith("  ok  versions: ")
    assert err.startswith("error: ")
