"""The way from nothing to a service behind mutual TLS, as docs/how-to/mutual-tls.md and certs/README.md have it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SECTION = "## Mutual TLS: from nothing to a service that only its friends can reach, in five commands"
NAMES = ("LIGHTLINK_URL", "NATS_URL", "LIGHTLINK_TLS_CA", "LIGHTLINK_TLS_CERT", "LIGHTLINK_TLS_KEY")


class Terminal:
    """A folder in which commands are run as a user would; what stays running ends with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = {name: value for name, value in os.environ.items() if name not in NAMES}
        self.environment["PATH"] = os.pathsep.join(paths)
        self.running: list[subprocess.Popen[str]] = []

    def run(self, command: str) -> str:
        """Run a command to its good end, and return what it printed."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command that stays."""
        with (self.folder / "stderr").open("a") as log:
            process = subprocess.Popen(
                f"exec {command}",
                shell=True,
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.running.append(process)
        return process

    def start_and_read(self, command: str) -> str:
        """Start a command that stays, and return the first line it prints."""
        stdout = self.start(command).stdout
        assert stdout is not None
        line = stdout.readline()
        assert line, (self.folder / "stderr").read_text()
        return line

    def close(self) -> None:
        """End what is still running, the last first."""
        for process in reversed(self.running):
            with process:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def code_blocks(file: str, heading: str, language: str) -> list[str]:
    """Return the code in one section of a page."""
    section = (ROOT / file).read_text().partition(f"\n{heading}\n")[2]
    section = re.split(r"\n##+ ", section)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_the_five_commands_work_as_they_stand_there(terminal: Terminal) -> None:
    first, second = (block.strip().splitlines() for block in code_blocks("docs/how-to/mutual-tls.md", SECTION, "sh"))
    assert len(first) + len(second) == 5
    *preparing, server = first
    for command in preparing:
        terminal.run(command)
    # All is as it stands there but for the port, which may be in use on this machine.
    started = terminal.start_and_read(server.replace("4222", "0"))
    port = re.match(r"nats-server at tls://127\.0\.0\.1:(\d+) ", started)[1]  # type: ignore[index]
    (service,) = second
    module, code = code_blocks("docs/how-to/mutual-tls.md", SECTION, "python")
    (terminal.folder / "friends.py").write_text(module)
    assert terminal.start_and_read(service.replace("4222", port)).startswith("serving math on tls://127.0.0.1:")
    (terminal.folder / "client.py").write_text(code.replace("4222", port))
    assert terminal.run("python client.py") == "3\n"
    # Whoever leaves the certificate away does not get in.
    stranger = f"lightlink call math add '{{}}' --url tls://127.0.0.1:{port} --tls-ca certs/ca.pem; test $? = 3"
    assert terminal.run(stranger) == ""


def test_the_page_on_certificates_works_with_a_plain_server(terminal: Terminal) -> None:
    heading = "## From nothing to a service behind mutual TLS"
    (block,) = code_blocks("certs/README.md", heading, "sh")
    *preparing, server = block.strip().splitlines()
    for command in preparing:
        terminal.run(command.replace("certs/ >", "certs/ --host 127.0.0.1 --port -1 >"))
    terminal.start(f"{server} --ports_file_dir {terminal.folder}")
    port = eventually(lambda: published_port(terminal.folder), timeout=30)
    service = textwrap.dedent("""
        import lightlink

        service = lightlink.Service("user-service")

        @service.rpc
        def get(user_id: str) -> dict:
            return {"user_id": user_id, "name": "Ada"}
    """)
    (terminal.folder / "users.py").write_text(service)
    files = "--tls-ca certs/ca.pem --tls-cert certs/user-service.pem --tls-key certs/user-service.key"
    line = terminal.start_and_read(f"lightlink run users:service --url tls://localhost:{port} {files}")
    assert line.startswith("serving user-service on ")
    (code,) = code_blocks("certs/README.md", heading, "python")
    code = code.replace("4222", port).replace("    client.call(", "    print(client.call(").rstrip() + ")\n"
    (terminal.folder / "client.py").write_text("import lightlink\n\n" + code)
    assert "Ada" in terminal.run("python client.py")
    adding, one_by_one, revoking = sections("certs/README.md", "## Adding an identity", "## Taking access away")
    (pid,) = re.findall(r"_(\d+)\.ports", " ".join(path.name for path in terminal.folder.glob("*.ports")))
    (terminal.folder / "nats.pid").write_text(pid)
    printed = terminal.run(adding.strip() + f" --url tls://localhost:{port}")
    assert "agent-3" in printed
    others = one_by_one.replace("agent-2 agent-3", "agent-4 agent-5")
    terminal.run(others.replace("certs/ >", "certs/ --host 127.0.0.1 --port -1 >"))
    terminal.run(revoking)
    assert list((terminal.folder / "certs" / "revoked").glob("web*.pem"))


def sections(page: str, *starts: str) -> list[str]:
    """Return the shell blocks in the sections of a page whose headings start so."""
    headings = [line for line in (ROOT / page).read_text().splitlines() if line.startswith(starts)]
    return [block for heading in headings for block in code_blocks(page, heading, "sh")]


def published_port(folder: Path) -> str:
    """Return the port that a nats-server says it listens on, "" while it does not."""
    text = "".join(path.read_text() for path in folder.glob("*.ports"))
    found = re.search(r"127\.0\.0\.1:(\d+)", text)
    return found[1] if found else ""


def test_make_certs_makes_a_development_set_once(terminal: Terminal) -> None:
    folder = terminal.folder
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / "certs").mkdir()
    (folder / "certs" / "README.md").write_text("kept")
    # The packages are installed; -o says so.
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "lightlink").symlink_to(Path(sys.executable).parent / "lightlink")
    printed = terminal.run("make -o .venv/.installed certs")
    for name in ("ca", "server", "math", "web", "agent-1", "manager", "ops"):
        assert re.search(rf"^{name} ", printed, re.MULTILINE)
        assert (folder / "certs" / f"{name}.key").stat().st_mode & 0o777 == 0o600
    before = {path.name: path.read_bytes() for path in (folder / "certs").iterdir()}
    again = terminal.run("make -o .venv/.installed certs")
    assert "what is there stays" in again
    assert {path.name: path.read_bytes() for path in (folder / "certs").iterdir()} == before
    tls = tls_of(folder / "certs", "web")
    with (
        lightlink.EmbeddedServer(tls=folder / "certs") as server,
        lightlink.connect(server.url.replace("127.0.0.1", "localhost"), tls=tls) as client,
    ):
        assert client.set_state("key", 1) == 1
