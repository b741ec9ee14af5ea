"""What systemd is told, and the units it is given. No systemd runs in the tests: its socket is played."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.contrib import systemd
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = """
import lightlink
service = lightlink.Service("notified")
service.register("add", lambda a, b: a + b)
"""


def enrolled(folder: Path) -> Path:
    folder.mkdir()
    (folder / "agent.json").write_text(json.dumps({"name": "a-0815", "urls": ["tls://localhost"]}))
    return folder


def test_systemd_hears_of_ready_life_and_end(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SERVICE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        env.pop("WATCHDOG_PID", None)
        command = [sys.executable, "-m", "lightlink.cli", "run", "shop", f"--url={url}"]
        with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL) as process:
            try:
                ready, status = heard.recv(4096).decode().splitlines()
                assert ready == "READY=1"
                assert status.startswith("STATUS=")
                assert status.endswith("connected")
                assert [heard.recv(4096) for _ in range(2)] == [b"WATCHDOG=1"] * 2
                process.send_signal(signal.SIGTERM)
                eventually(lambda: heard.recv(4096) == b"STOPPING=1")
                assert process.wait(30) == 0
            finally:
                process.kill()


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", "relative", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        systemd.notify("READY=1")
    monkeypatch.setenv("WATCHDOG_USEC", "0")
    assert systemd.watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert systemd.watchdog_seconds() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_seconds() is None


def test_the_unit_runs_the_agent_and_may_write_its_folder_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = enrolled(tmp_path / "a folder with 100% $HOME")
    assert main(["agent", "install", "plant:agent", "--enrolled", str(folder), "--print"]) == Exit.DONE
    unit = capsys.readouterr().out
    escaped = str(folder).replace("%", "%%")
    dollars = escaped.replace("$", "$$")  # variables stand for something in a command only
    assert f'"agent" "run" "plant:agent" "--enrolled={dollars}"' in unit
    assert f'ReadWritePaths="{escaped}"' in unit
    for line in ("Type=notify", "WatchdogSec=60", "Restart=always", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in unit.splitlines()


def test_a_unit_cannot_be_broken_out_of(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="control character"):
        systemd.unit("x", ["a\nExecStartPre=/bin/evil"], tmp_path, tmp_path)


def test_install_and_uninstall_ask_systemctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = enrolled(tmp_path / "agent")
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unit = tmp_path / "config" / "systemd" / "user" / "lightlink-agent-a-0815.service"
    assert main(["agent", "install", "plant", "--enrolled", str(folder), "--user"]) == Exit.DONE
    assert "WantedBy=default.target" in unit.read_text()
    assert main(["agent", "install", "plant", "--enrolled", str(folder), "--user"]) == Exit.DONE
    assert main(["agent", "install", "other", "--enrolled", str(folder), "--user"]) == Exit.DONE
    assert main(["agent", "uninstall", "--enrolled", str(folder), "--user"]) == Exit.DONE
    assert not unit.exists()
    assert (tmp_path / "asked").read_text().splitlines() == [
        *["--user daemon-reload", f"--user enable --now {unit.name}"] * 3,
        f"--user restart {unit.name}",  # of what has changed, with which the running one would go on
        f"--user disable --now {unit.name}",
        "--user daemon-reload",
    ]
    assert main(["agent", "uninstall", "--enrolled", str(folder), "--user"]) == Exit.FAILED
    assert "there is no" in capsys.readouterr().err
