"""``lightlink fleet`` and ``lightlink agent enroll``: the whole way, as it is typed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

from lightlink.certs.certificate import describe, load_certificates
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.protocol.permissions import Grant
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGENT = """
import lightlink
agent = lightlink.Agent("a-0815", labels={"kind": "pump"}, refusal_timeout=0.1)
agent.register("double", lambda x: 2 * x)
"""


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Type commands as the fleet's admin: ``typed("fleet", "list")`` returns code, output and errors."""
    with contextlib.ExitStack() as stack:

        def call(*arguments: object, code: int = Exit.DONE) -> str:
            words = [str(argument) for argument in arguments]
            if words[0] in ("fleet", "command") and words[1] not in ("init", "server-config"):
                words += [f"--url={call.url}"]  # type: ignore[attr-defined]
                files = {"ca": "ca.pem", "cert": "ops.pem", "key": "ops.key"}
                words += [f"--tls-{option}={tmp_path / 'fleet' / file}" for option, file in files.items()]
            found = main(words)
            out, err = capsys.readouterr()
            assert found == code, err
            return out + err

        call.stack = stack  # type: ignore[attr-defined]
        yield call


def responder(typed: Any, folder: Path) -> subprocess.Popen[str]:
    """Start a responder as a process of its own."""
    command = [sys.executable, "-m", "lightlink.cli", "fleet", "auth", str(folder), f"--url={typed.url}"]
    process = typed.stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    typed.stack.callback(process.kill)
    assert "this responder answers" in process.stdout.readline()
    return process  # type: ignore[no-any-return]


def test_from_nothing_to_a_revoked_agent(typed: Any, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    assert "next: nats-server" in typed(
        "fleet", "init", folder, "--host", "127.0.0.1", "--accounts-dir", tmp_path / "a"
    )
    assert "is there already" in typed("fleet", "init", folder, code=Exit.USAGE)
    config = typed("fleet", "server-config", folder, "--accounts-dir", tmp_path / "a")
    config = "\n".join(line for line in config.splitlines() if "store_dir" not in line)
    server = typed.stack.enter_context(EmbeddedServer(config=config))
    typed.stack.callback(server.kill)  # an orderly end may take it seconds
    typed.url = server.url.replace("nats://", "tls://")
    process = responder(typed, folder / "responder")

    token = typed("fleet", "token", "a-0815", "--label", "site=berlin").strip()
    machine = tmp_path / "machine"
    assert "enrolled as a-0815" in typed("agent", "enroll", token, "--dir", machine)
    assert "has been used" in typed("agent", "enroll", token, "--dir", tmp_path / "other", code=Exit.FAILED)
    token = typed("fleet", "token", "web", "--role", "client", "--call", "math", "--state").strip()
    assert "enrolled as web" in typed("agent", "enroll", token, "--dir", tmp_path / "web")
    info = describe(load_certificates("certificate", tmp_path / "web" / "agent.pem")[0], tmp_path / "web.pem")
    assert info.grant == Grant.of("client", calls=["math"], state=True)
    assert re.search(r"a-0815  enrolled  until \S+  site=berlin", typed("fleet", "list"))

    (tmp_path / "plant.py").write_text(AGENT)
    typed("command", "list")  # it makes the streams
    command = [sys.executable, "-m", "lightlink.cli", "agent", "run", "plant", f"--enrolled={machine}", "--label=x=y"]
    agent = typed.stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path))
    typed.stack.callback(agent.kill)
    assert "agent a-0815 takes commands" in agent.stdout.readline()
    assert "42" in typed("command", "send", "a-0815", "double", '{"x": 21}')

    assert "revoked a-0815" in typed("fleet", "revoke", "a-0815", "--reason", "stolen")
    assert agent.wait(30) == Exit.NOT_CONNECTED
    assert "revoked" in typed("fleet", "list")
    events = [json.loads(line)["what"] for line in typed("fleet", "audit", "--json").splitlines()]
    assert events[:6] == ["token", "enrolled", "refused", "token", "enrolled", "revoked"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    typed("fleet", "status", code=Exit.NOT_CONNECTED)  # nobody is there to let even an admin in


def test_a_request_is_accepted_by_its_fingerprint(typed: Any, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    typed("fleet", "init", folder, "--host", "127.0.0.1")
    config = typed("fleet", "server-config", folder, "--accounts-dir", tmp_path / "a")
    config = "\n".join(line for line in config.splitlines() if "store_dir" not in line)
    server = typed.stack.enter_context(EmbeddedServer(config=config))
    typed.stack.callback(server.kill)  # an orderly end may take it seconds
    typed.url = server.url.replace("nats://", "tls://")
    responder(typed, folder)
    token = typed("fleet", "token", "a-0815", "--approve").strip()
    command = [sys.executable, "-m", "lightlink.cli", "agent", "enroll", token, "--dir", str(tmp_path / "machine")]
    machine = typed.stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    typed.stack.callback(machine.kill)
    shown = machine.stdout.readline().split()[-1]
    assert shown in eventually(lambda: typed("fleet", "pending"))
    assert "nothing waits" in typed("fleet", "accept", "no:such", code=Exit.FAILED)
    assert "nothing waits for b" in typed("fleet", "reject", shown, "--name", "b", code=Exit.FAILED)
    assert "accepted a-0815" in typed("fleet", "accept", shown, "--name", "a-0815")
    assert machine.wait(30) == 0


def test_an_agent_of_another_name_is_not_run(typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plant2.py").write_text(AGENT)
    (tmp_path / "agent.json").write_text('{"name": "other", "urls": ["tls://localhost"]}')
    monkeypatch.chdir(tmp_path)
    refused = typed("agent", "run", "plant2", "--enrolled", tmp_path, code=Exit.USAGE)
    assert "enrolled as 'other'" in refused
