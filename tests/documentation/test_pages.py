"""Every page is followed from top to bottom: what is printed in it is run, and says what it should."""

from __future__ import annotations

import configparser
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sqlite3
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
from helpers.docs import run_pytest, sample
from helpers.pages import ROOT, runnable
from helpers.process import run_python
from helpers.raw import RawPeer
from helpers.waiting import eventually

import lightlink
from lightlink.cli import main

if TYPE_CHECKING:
    from conftest import StartServer
    from documentation.conftest import Read
    from helpers.pages import Reader
    from helpers.process import PythonProcess

MAKE = "needs the network and minutes; make and the suite are what runs this test"
INSTALL = "the packages are there; tests/documentation/test_packaging.py installs them"


def use_its_server(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the server that a page starts, on a free port."""
    (server,) = reader.start("nats-server at ")
    monkeypatch.setenv("LIGHTLINK_URL", what_it_said(server, r"nats-server at (\S+)"))


READMES = ["README.md", pytest.param("README.zh-CN.md", marks=pytest.mark.slow)]


@pytest.mark.parametrize("page", READMES)
def test_the_readme(page: str, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = read(page, server=False, replace={"--port 4222": "--port 0"})
    reader.leave_out(MAKE)
    reader.leave_out(INSTALL)
    use_its_server(reader, monkeypatch)
    reader.save("calc.py")
    reader.run_beside("lightlink run calc:service", "serving math")
    assert reader.python() == "3\n7\n{'user_id': 'U001'}\n{'t': 21.5}\n"
    reader.save("pump.py")
    reader.run_beside("lightlink agent run pump:agent", "takes commands")
    assert reader.python().startswith("{'rpm': 900}\n{")
    assert reader.python() == "completed {'done': 1}\n"


def test_installing(read: Read) -> None:
    reader = read("docs/how-to/install.md", server=False)
    reader.leave_out(INSTALL)
    assert reader.python() == "True\n"


def test_the_index(read: Read) -> None:
    reader = read("docs/index.md")
    service = lightlink.Service("math")
    service.register("add", lambda a, b: a + b)
    with service:
        assert reader.python() == "3\n"


def test_the_link(read: Read) -> None:
    reader = read("docs/how-to/link.md")
    reader.python()
    assert reader.python() == "3\n"
    assert reader.python() == "Point(x=1.0, y=2.0)\n"
    reader.python()
    assert reader.python() == "math.add: argument 'b': expected `int`, got `str`\n"
    assert "{'user_id': 'U001'}\n" in reader.python()
    reader.python()
    reader.python()
    assert (reader.folder / "copy.csv").read_text() == "apple,3\n"
    reader.python()


def test_commands(read: Read) -> None:
    reader = read("docs/how-to/commands.md")
    reader.python()
    sent = reader.python()
    assert sent.startswith("{'restarted_after': 5}\n")
    assert sent.endswith("['completed', 'completed']\n['client-001']\n")
    assert reader.python() == "failed\n"
    reader.python()
    assert '"client_id":"client-001"' in reader.shell()


def test_daemons(read: Read) -> None:
    reader = read("docs/how-to/daemons.md")
    reader.python()
    assert reader.python() == "did 1\n"
    assert reader.python() == "leave the building\n"
    assert reader.python() == "control.reload\n"
    assert reader.python() == "control.stop\n"
    assert reader.python() == "report True\n"
    assert reader.python() == "True\nled\n"
    assert reader.python() == "0\n"
    assert reader.python() == "False\n"
    assert reader.python() == "21.5\n"


def test_the_outbox(read: Read) -> None:
    reader = read("docs/how-to/outbox.md")
    assert reader.python() == "1\n"
    reader.python()
    with contextlib.closing(sqlite3.connect("shop.sqlite3")) as database:
        eventually(lambda: database.execute("SELECT number FROM bills").fetchall() == [(7,)])


def test_the_shell(read: Read) -> None:
    reader = read("docs/how-to/shell.md")
    reader.save("shop.py")
    reader.start("serving math", "listening on ")
    printed = reader.shell()
    assert "3\n" in printed
    assert "device.sensor01\n" in printed
    assert "data.csv" in printed


def serve_math(**options: Any) -> lightlink.Service:
    """Return the service that many pages call, started."""
    service = lightlink.Service("math", **{"version": "1.3.0", **options})

    @service.rpc
    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    return service.start()


def test_the_context(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    reader = read("docs/how-to/context.md")
    reader.python()
    reader.python()
    reader.python()
    drop = reader.names["service"].test_client()
    with pytest.raises(lightlink.HandlerError, match="admins only"):
        drop.call("drop_everything")
    drop.call("drop_everything", headers={"Role": "admin"})
    reader.python()


def test_discovery(read: Read) -> None:
    reader = read("docs/how-to/discovery.md")
    reader.save("math_service.py")
    reader.start("serving math")
    printed = reader.python()
    assert "math ('1.3.0',) 1" in printed
    assert "Add two numbers." in printed
    printed = reader.shell(leave_out={"lightlink doctor": "test_the_shell asks it"})
    assert "Add two numbers." in printed


def test_typed_clients(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = read("docs/how-to/typed-clients.md")
    monkeypatch.syspath_prepend(reader.folder)
    reader.save("math_service.py")
    reader.start("serving math")
    reader.shell()
    reader.python()
    assert '"openapi": "3.1' in reader.shell()
    monkeypatch.delitem(sys.modules, "math_client")


def test_testing(read: Read) -> None:
    reader = read("docs/how-to/testing.md", server=False)
    reader.save("shop/services.py")
    handlers = reader.save("test_handlers.py")
    reader.leave_out(INSTALL)
    reader.save("test_with_server.py")
    assert handlers.exists()
    assert "2 passed" in run_pytest(reader.folder)


def test_tracing(read: Read) -> None:
    reader = read("docs/how-to/tracing.md", server=False)
    reader.leave_out(INSTALL)
    reader.run_program()


def test_http(read: Read) -> None:
    reader = read("docs/http.md", replace={"127.0.0.1:8475": "127.0.0.1:0", "0.0.0.0:8475": "0.0.0.0:0"})
    (reader.folder / "tokens.json").write_text(tokens_of("docs/http.md"))
    reader.leave_out(INSTALL)
    lines = ("127.0.0.1:0", "0.0.0.0:0 --tokens tokens.json")
    reader.leave_out("its lines are the next two, with free ports")
    for line in lines:
        reader.run_beside(f"lightlink http --listen {line}", "http://")
    reader.save("greenhouse.py")
    reader.run_beside("lightlink agent run greenhouse:agent", "takes commands")
    while reader.language == "sh":
        reader.leave_out("tests/http/test_sample.py runs the session with curl")
    reader.save("tokens.json")
    reader.python()
    assert callable(reader.names["app"])
    reader.python()
    registered = prometheus_client.generate_latest().decode()
    assert "lightlink_client_connected" in registered


def tokens_of(page: str) -> str:
    """Return the token file that a page shows."""
    return next(block.text for block in runnable(page) if block.language == "json")


def test_quic(read: Read) -> None:
    hosts = {"nats.example.com": "localhost", "edge.example.com": "localhost", "certs/ > ": "certs/ --port -1 > "}
    reader = read("docs/how-to/quic.md", server=False, replace=hosts)
    reader.leave_out(INSTALL)
    reader.shell()
    nats, gateway = (line for line in reader.lines())
    server = reader.run_beside(nats, "Server is ready")
    port = listening_port(server)
    state = {
        "tls://127.0.0.1:4222": f"tls://127.0.0.1:{port}",
        "127.0.0.1:8476": "127.0.0.1:0",
    }
    for printed, here in state.items():
        gateway = gateway.replace(printed, here)
    carries = reader.run_beside(f"{gateway} --listen 127.0.0.1:0", "gateway on ")
    udp = what_it_said(carries, r"gateway on \S+:(\d+) \(UDP\)")
    reader.replace = {"quic://edge.example.com": f"quic://localhost:{udp}"}
    reader.python()
    assert reader.names["client"].is_connected
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(reader.save("lightlink-gateway.service").read_text())
    options = re.findall(r" (--[\w-]+)", unit["Service"]["ExecStart"])
    with contextlib.redirect_stdout(io.StringIO()) as told:
        main(["gateway", "--help"])
    assert [option for option in options if option not in told.getvalue()] == []


def what_it_said(process: PythonProcess, pattern: str) -> str:
    """Return what a process has said, or will say, where the group of a pattern is."""
    found = eventually(lambda: re.search(pattern, process.stdout + process.stderr))
    return str(found[1])


def listening_port(server: PythonProcess) -> str:
    """Return the port that a nats-server says it listens on."""
    return what_it_said(server, r"Listening for client connections on \S+:(\d+)")


# Translations have the same code, as test_translations.py says.
TUTORIALS = ["docs/tutorial.md", pytest.param("docs/tutorial.zh-CN.md", marks=pytest.mark.slow)]


@pytest.mark.parametrize("page", TUTORIALS)
def test_the_tutorial(page: str, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    follow_the_tutorial(page, read, monkeypatch)


def follow_the_tutorial(page: str, read: Read, monkeypatch: pytest.MonkeyPatch, programs: Path | None = None) -> None:
    """Do what the tutorial says; with the ``programs`` of another environment, if they are given."""
    free = {"--port 4222": "--port 0", "lightlink http\n": "lightlink http --listen 127.0.0.1:0\n"}
    reader = read(page, server=False, replace=free, programs=programs)
    reader.leave_out(INSTALL)
    use_its_server(reader, monkeypatch)
    reader.save("shop.py")
    reader.start("serving shop")
    assert '"total": 1.5' in reader.shell()
    said = reader.session(3).splitlines()
    assert said == [
        "{'item': 'apple', 'total': 1.5}",
        "0.75",
        "shop.total: argument 'count': expected `int`, got `str`",
        "{'item': 'apple', 'count': 3}",
        "120",
    ]
    assert (reader.folder / "copy.csv").read_text() == "apple,3\n"
    reader.save("sensor.py")
    assert reader.session(1) == "pending\n"
    reader.start("takes commands")
    assert '"unit": "F"' in reader.shell()
    (http,) = reader.start("http://")
    reader.replace["127.0.0.1:8475"] = what_it_said(http, r"http://(127\.0\.0\.1:\d+)")
    assert '"client_id":"sensor-1"' in reader.shell()
    assert reader.session(1) == "[['sensor-1']]\ncompleted {'done': 1}\n"
    assert "survey" in reader.shell()


def test_the_fleet(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = {"--host nats.example.com": "--host localhost --port -1"}
    reader = read("docs/fleet.md", server=False, replace=nowhere)
    (reader.folder / "plant").mkdir()
    (reader.folder / "plant" / "pump.py").write_text(PUMP)
    install, *lines = reader.lines()
    assert install.startswith("pip install ")
    for line in lines:
        reader.type(line)
    nats, responder = reader.lines()
    url = f"tls://localhost:{listening_port(reader.run_beside(nats, 'Server is ready'))}"
    reader.run_beside(responder.replace("tls://nats.example.com:4222", url), "responder")
    as_ops = {"url": url, "tls_ca": "fleet/ca.pem", "tls_cert": "fleet/ops.pem", "tls_key": "fleet/ops.key"}
    for name, value in as_ops.items():
        monkeypatch.setenv(f"LIGHTLINK_{name.upper()}", value)
    token = reader.shell().strip()
    reader.replace = {"lltoken1_...": token}
    assert "enrolled as a-0815" in reader.shell()
    with lightlink.connect() as ops, lightlink.CommandManager(ops):  # which makes the streams
        reader.start("takes commands")
    made, enrolled = reader.lines()
    assert "enrolled as web" in reader.type(enrolled.replace(token, reader.type(made).strip()))
    revoke, label = reader.shell, reader.lines
    assert "revoked a-0815" in revoke()
    assert "site=munich" in reader.type(label()[0])


def test_scaling(read: Read) -> None:
    reader = read("docs/scaling.md", server=False)
    _, script, *options = shlex.split(reader.lines()[0])
    counted = run_python((ROOT / script).read_text(), *options).stdout
    for figure in ("1,000.0", "333.3", "1.7", "8.8", "497.4", "85.0"):
        assert f" {figure}\n" in counted
    assert "3,322 come back" in counted


PUMP = """
import lightlink

agent = lightlink.Agent("a-0815")


@agent.command("restart")
def restart() -> None:
    pass
"""


@pytest.mark.interop  # the nats command, where it is installed, backs up and restores
def test_the_operations(read: Read, monkeypatch: pytest.MonkeyPatch, fresh_server: StartServer) -> None:
    reader = read("docs/operations.md")
    with lightlink.connect() as client, lightlink.CommandManager(client) as manager:
        promise = manager.send("away", "restart", timeout=600)
        manager.cancel(manager.send("away", "restart", timeout=600).command_id)
    there, elsewhere = os.environ["LIGHTLINK_URL"], fresh_server().url
    monkeypatch.setenv("PATH", str(Path.home() / "go" / "bin"), prepend=os.pathsep)
    if shutil.which("nats") is None:
        reader.leave_out("there is no nats command here")
        reader.leave_out("there is no nats command here")
    else:
        monkeypatch.setenv("NATS_URL", there)
        reader.shell()
        monkeypatch.setenv("NATS_URL", elsewhere)
        reader.shell()
        with lightlink.connect(elsewhere) as client, lightlink.CommandManager(client) as manager:
            assert manager.get(promise.command_id).status == "pending"
            assert {command.status for command in manager.list("away")} == {"pending", "failed"}
    assert reader.shell() == "0 stored messages removed\n"


def test_the_wire_format(read: Read) -> None:
    reader = read("docs/wire.md")
    request, reply, error = (json.loads(reader.save(f"{name}.json").read_text()) for name in ("ask", "reply", "error"))
    with RawPeer(os.environ["LIGHTLINK_URL"]) as peer, serve_math():

        def answer(subject: str, body: dict[str, Any]) -> Any:
            return json.loads(peer.run(lambda nc: nc.request(subject, json.dumps(body).encode(), timeout=20)).data)

        assert answer("$SRV.math.add", request) == reply
        unknown = answer("$SRV.math.ad", {**request, "method": "ad"})
    assert unknown["error"].startswith(error["error"])
    assert {**unknown, "error": error["error"]} == error
    reader.leave_out("tests/files/test_service.py has what is announced")


def test_monitoring(read: Read) -> None:
    reader = read("docs/monitoring.md", replace={"9100": "0"})
    reader.python()
    server = reader.names["server"]
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
        assert 'lightlink_client_connected{client="web"} 1.0' in answer.read().decode()
    server.shutdown()
    server.server_close()


def test_conformance(read: Read) -> None:
    reader = read("docs/conformance.md")
    with lightlink.connect() as client, sample("conformance").make_service(client):
        assert "23 hold, 0 should and do not, 0 must and do not" in reader.shell()
    (judge,) = reader.start("waiting for a client")
    reader.python()
    assert "13 hold, 0 should and do not, 0 must and do not" in judge.wait().stdout
    with sample("conformance").make_agent(lightlink.connect()):
        assert "22 hold, 0 should and do not, 0 must and do not" in reader.shell()
    (judge,) = reader.start("waiting for a program")
    reader.python()
    assert "10 hold, 0 should and do not, 0 must and do not" in judge.wait().stdout
    reader.shell()
    assert json.loads((reader.folder / "vectors.json").read_text())["format"] == 1
