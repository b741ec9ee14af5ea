from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from helpers.edge import gateway_for, url_of
from helpers.pki import tls_of

import lightlink
from lightlink.cli.processes.gateway import gateway as command
from lightlink.cli.terminal.exits import run
from lightlink.errors import LinkError
from lightlink.gateway.health import HealthServer
from lightlink.protocol.text import joined

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython, StartServer
    from helpers.edge import Link, StartGateway

    from lightlink.server import EmbeddedServer


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_the_command_serves_until_sigterm_and_tells_clients_why(
    python: StartPython, secured: EmbeddedServer, identities: Path, link: Link
) -> None:
    arguments = ["--listen", "127.0.0.1:0", "--upstream", secured.url, "--health", "127.0.0.1:0", "--json"]
    arguments += ["--cert", str(identities / "gateway.pem"), "--key", str(identities / "gateway.key")]
    process = python(
        "import sys; from lightlink.cli import main; sys.argv[0] = 'lightlink'; main()", "gateway", *arguments
    )
    facts: dict[str, Any] = json.loads("{" + process.wait_line("{"))
    client = link("keeper", facts["url"])
    client.set_state("edge", 1)
    assert json.loads(get(f"{facts['health']}/healthz")[1]) == {"status": "ok", "connections": 1, "streams": 1}
    process.signal(signal.SIGTERM)
    ended = process.wait()
    assert ended.returncode == 0
    events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert [each["event"] for each in events if "event" in each] == ["connected", "ended"]
    assert events[-1]["reason"] == "the gateway is shutting down"


def test_metrics_count_what_happened(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway()
    with HealthServer(gateway, "127.0.0.1:0") as served:
        link("keeper", url_of(gateway)).set_state("metrics", 1)
        status, text = get(f"{served.url}/metrics")
        assert status == 200
        assert "lightlink_gateway_connections 1\n" in text
        assert "# TYPE lightlink_gateway_accepted_total counter" in text
        gateway.counts.refusals["junk"] += 2
        assert 'lightlink_gateway_refusals_total{reason="junk"} 2' in get(f"{served.url}/metrics")[1]
        assert get(f"{served.url}/else")[0] == 404


def test_health_reports_an_unreachable_server(start_gateway: StartGateway) -> None:
    gateway = start_gateway("nats://127.0.0.1:9")
    with HealthServer(gateway, "127.0.0.1:0") as served:
        status, text = get(f"{served.url}/healthz")
        assert (status, json.loads(text)["status"]) == (503, "nats://127.0.0.1:9: connection refused")
        gateway.stop()
        assert json.loads(get(f"{served.url}/healthz")[1])["status"] == "draining"


def test_addresses_of_ipv6_stand_in_brackets(start_gateway: StartGateway) -> None:
    gateway = start_gateway("nats://127.0.0.1:9", listen="[::1]:0")
    with HealthServer(gateway, "[::1]:0") as served:
        assert served.url.startswith("http://[::1]:")
        assert get(f"{served.url}/metrics")[0] == 200
    assert joined(*gateway.address) == f"[::1]:{gateway.address[1]}"


def test_a_port_in_use_is_named_in_the_error(
    identities: Path, secured: EmbeddedServer, start_gateway: StartGateway
) -> None:
    host, port = start_gateway().address
    with pytest.raises(LinkError, match=f"listening on {host}:{port} .UDP. failed: Address already in use"):
        gateway_for(identities, secured.url, listen=f"{host}:{port}").start()


def test_invalid_arguments_are_reported(identities: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--cert", str(identities / "gateway.pem"), "--key", str(identities / "gateway.key")]
    assert run(command, [*files, "--listen", "nowhere"]) == 2
    assert "must be host:port" in capsys.readouterr().err


def test_a_context_may_name_a_gateway(
    gateway: lightlink.gateway.Gateway, identities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    files = {name: str(identities / f"keeper.{kind}") for name, kind in (("cert", "pem"), ("key", "key"))}
    content = {"url": url_of(gateway), "ca": str(identities / "ca.pem"), **files}
    (folder / "edge.json").write_text(json.dumps(content))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with lightlink.connect(context="edge") as client:
        client.set_state("context", 1)


def test_an_agent_runs_commands_through_a_gateway(fresh_server: StartServer, identities: Path) -> None:
    # On the shared server other tests leave command streams with a configuration that LightLink never creates.
    server = fresh_server(tls=identities)
    with (
        gateway_for(identities, server.url) as gateway,
        lightlink.connect(server.url, tls=tls_of(identities, "manager")) as client,
        lightlink.CommandManager(client) as manager,
    ):
        agent = lightlink.Agent("agent-a", url_of(gateway), tls=tls_of(identities, "agent-a"))
        agent.register("add", lambda a, b: a + b)
        with agent:
            assert manager.send("agent-a", "add", {"a": 1, "b": 2}, timeout=20).result(20) == 3
