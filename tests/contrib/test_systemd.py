"""What systemd is told, through a real socket: no systemd runs in the tests, so they play it."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import blocks, run, shell_lines
from helpers.process import PythonProcess
from helpers.waiting import eventually

import lightlink
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.contrib import systemd
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython

PAGE = "how-to/systemd.md"
SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "systemd"


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def hear(self) -> list[str]:
        return self._socket.recv(4096).decode().splitlines()

    def hear_until(self, word: str) -> list[str]:
        """Return the message that has a line beginning so."""
        return eventually(lambda: [said for said in [self.hear()] if any(line.startswith(word) for line in said)])[0]

    def forget(self) -> list[bytes]:
        """Return what was said until now and is not heard yet."""
        found = []
        while select.select([self._socket], [], [], 0)[0]:
            found.append(self._socket.recv(4096))
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Systemd]:
    heard = Systemd(tmp_path / "notify")
    yield heard
    heard.close()


@pytest.fixture
def gauge(python: StartPython, tmp_path: Path, url: str, manager: Systemd) -> PythonProcess:
    """The sample, under the eyes of systemd."""
    for name in ("gauge.py", "gauge.json"):
        shutil.copy(SAMPLE / name, tmp_path)
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    env = {**manager.environment, "WATCHDOG_USEC": "200000", "LIGHTLINK_URL": url}
    return python(code, tmp_path / "gauge.py", env=env)


def test_the_sample_is_ready_alive_reloaded_and_stopped(
    gauge: PythonProcess, manager: Systemd, tmp_path: Path, url: str
) -> None:
    ready, status = manager.hear()
    assert ready == "READY=1"
    assert status.startswith("STATUS=<Service 'gauge' 1.0.0 running")
    assert status.endswith("connected")
    assert manager.hear_until("WATCHDOG=1") == ["WATCHDOG=1"]
    with lightlink.connect(url) as client:
        assert client.call("gauge", "unit") == "bar"

        (tmp_path / "gauge.json").write_text('{"unit": "psi"}')
        gauge.signal(SIGHUP)
        _, instant = manager.hear_until("RELOADING=1")
        assert instant.removeprefix("MONOTONIC_USEC=").isdecimal()
        assert manager.hear_until("READY=1") == ["READY=1"]
        assert client.call("gauge", "unit") == "psi"

        (tmp_path / "gauge.json").write_text("not JSON")
        gauge.signal(SIGHUP)
        manager.hear_until("READY=1")
        assert client.call("gauge", "unit") == "psi"
    assert eventually(lambda: "the reload failed" in gauge.stderr)

    gauge.signal(SIGTERM)
    manager.hear_until("STOPPING=1")
    assert gauge.wait().returncode == 0


def test_the_status_follows_the_connection(python: StartPython, manager: Systemd) -> None:
    with lightlink.EmbeddedServer() as server:
        process = python(
            """
            import sys, lightlink
            from lightlink.contrib import systemd
            systemd.run(lightlink.Service("followed", sys.argv[1], reconnect_wait=0.05, reconnect_wait_max=0.1))
            """,
            server.url,
            env=manager.environment,
        )
        manager.hear_until("READY=1")
        server.kill()
        eventually(lambda: manager.hear()[0].endswith("reconnecting"))
        server.start()
        eventually(lambda: manager.hear()[0].endswith("connected"))
        process.signal(SIGTERM)
        assert process.wait().returncode == 0


def test_a_loop_that_hangs_is_not_said_to_live(manager: Systemd, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that systemd starts the process again."""
    for name, value in {**manager.environment, "WATCHDOG_USEC": "100000"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    looked = threading.Semaphore(0)
    with lightlink.connect(url) as other, lightlink.connect(url) as client:
        looks = other.is_responsive
        monkeypatch.setattr(other, "is_responsive", lambda timeout: (looked.release(), looks(timeout))[1])
        end = systemd.keep_alive(other, client)
        assert manager.hear() == ["WATCHDOG=1"]
        go_on, hangs = threading.Event(), threading.Event()
        client._connection.session.loop.call_soon(lambda: (hangs.set(), go_on.wait(30)))
        assert hangs.wait(30)
        assert not client.is_responsive(0.1)
        for _ in range(2):  # whole looks since it hangs, at one that does not: of those before all is heard
            manager.forget()
            while looked.acquire(blocking=False):
                pass
            assert all(looked.acquire(timeout=30) for _ in range(3))
        assert manager.forget() == []
        go_on.set()
        assert manager.hear() == ["WATCHDOG=1"]
        assert client.is_responsive(30)
        end()
    assert client.is_responsive()


def test_several_run_together_and_the_first_error_ends_them(url: str, prefix: str) -> None:
    refused = lightlink.EmbeddedServer(config="authorization { token: secret }")
    good = lightlink.Service(prefix, url)
    with refused, pytest.raises(lightlink.AuthenticationError):
        systemd.run(good, lightlink.Service(prefix, refused.url))
    assert good.stage.value == "stopped"
    with pytest.raises(InvalidOption, match="at least one"):
        systemd.run()


# Units ----------------------------------------------------------------------------------------------------------------


def test_the_sample_s_unit_is_what_the_library_writes() -> None:
    command = ["/opt/gauge/.venv/bin/python", "gauge.py"]
    environment = Path("/etc/lightlink/gauge.env")
    made = systemd.unit(
        "LightLink service gauge", command, Path("/opt/gauge"), environment_file=environment, reloads=True
    )
    assert made == (SAMPLE / "lightlink-gauge.service").read_text()


def test_each_setting_of_a_unit_is_escaped_as_it_is_read() -> None:
    """As systemd 252 reads them: `systemd --test --user` shows the values that were given."""
    made = systemd.unit(
        "50 % of C:\\\\",
        ["/opt/a$b/python", "$HOME", "100%", 'a "b"', "c\\"],
        Path("/srv/it\\"),
        Path('/srv/$data "x"\\'),
        environment_file=Path("/etc/[a] b*\\"),
    )
    for line in (
        "Description=50 %% of C:\\\\",
        "WorkingDirectory=/srv/it\\/",
        r'ExecStart="/opt/a$b/python" "$$HOME" "100%%" "a \"b\"" "c\\"',
        r"EnvironmentFile=/etc/\[a] b\*\\/",
        r'ReadWritePaths="/srv/$data \"x\"\\"',
    ):
        assert line in made.splitlines()
    assert "WorkingDirectory=/srv/it /\n" in systemd.unit("x", ["y"], Path("/srv/it "))


@pytest.mark.parametrize("description", ["a\nUser=root", "a\\", "a\\\\\\"])
def test_a_description_that_reaches_another_line_is_refused(description: str) -> None:
    with pytest.raises(InvalidOption, match=r"line|control character"):
        systemd.unit(description, ["x"], Path("/srv"))


def test_a_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    made = tmp_path / "lightlink-x.service"
    python = tmp_path / "a$b" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    made.write_text(systemd.unit("x 100% $HOME", [str(python), "-c", 'a "b" $c %d'], tmp_path, tmp_path))
    done = subprocess.run([program, "verify", made], capture_output=True, text=True, check=False)
    assert made.name not in done.stderr, done.stderr


def test_a_service_s_unit_is_printed_installed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weighing.py").write_text("import lightlink\nservice = lightlink.Service('scales')\n")
    (tmp_path / "scales.env").write_text("LIGHTLINK_URL=nats://127.0.0.1:1\n")
    asked = tmp_path / "asked"
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    assert main(["service", "install", "weighing", "--environment", "scales.env", "--print"]) == Exit.DONE
    printed = capsys.readouterr().out
    assert "Description=LightLink service scales\n" in printed
    assert f"EnvironmentFile={tmp_path}/scales.env\n" in printed
    assert '"run" "weighing"' in printed
    assert main(["service", "install", "weighing", "--user"]) == Exit.DONE
    unit = tmp_path / "config" / "systemd" / "user" / "lightlink-weighing.service"
    assert json.dumps("weighing") in unit.read_text()
    assert main(["service", "uninstall", "weighing", "--user"]) == Exit.DONE
    assert not unit.exists()
    assert len(asked.read_text().splitlines()) == 4
    assert main(["service", "install", "nowhere", "--print"]) == Exit.USAGE


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_s_program_runs_and_its_unit_is_printed(
    python: StartPython, manager: Systemd, url: str, tmp_path: Path
) -> None:
    (program,) = blocks(PAGE, "python")
    (tmp_path / "gauge.py").write_text(program)
    for line in shell_lines(PAGE, "echo "):
        run(["/bin/sh", "-ec", line], tmp_path)
    code = "import os, runpy, sys; os.chdir(sys.argv[1]); runpy.run_path('gauge.py', run_name='__main__')"
    env = {**manager.environment, "LIGHTLINK_URL": url}
    process = python(code, tmp_path, env=env)
    manager.hear_until("READY=1")
    process.signal(SIGTERM)
    assert process.wait().returncode == 0

    lines = [line.partition("#")[0] for line in shell_lines(PAGE, "lightlink service install")]
    assert len(lines) == 2
    for line in lines:
        printed = run([sys.executable, "-m", "lightlink.cli", *line.split()[1:]], tmp_path)
        assert "ExecStart=" in printed
    # What the unit starts has its settings too: it imports the module, which is not `__main__` then.
    code = "import os, sys; from lightlink.cli import main; os.chdir(sys.argv[1]); main(['run', 'gauge'])"
    python(code, tmp_path, env=env).wait_line("serving gauge")
    with lightlink.connect(url) as client:
        assert client.call("gauge", "unit") == "bar"
