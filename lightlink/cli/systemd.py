"""What systemd is told while a program runs (sd_notify), and the units that have it run one."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger("lightlink")

_UNIT = """\
# Made by LightLink; `systemctl edit` adds to it.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={folder}
ExecStart={command}
Restart=always
RestartSec=5
WatchdogSec=60
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writable}
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy={target}
"""


# While it runs -------------------------------------------------------------------------------------------------------


def notify(*words: str) -> None:
    """Tell systemd something of this process (sd_notify(3)); without effect where nothing listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    where = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(where)
            out.sendall("\n".join(words).encode())
    except OSError as exc:
        _log.debug("lightlink: systemd was not told %s: %s", words, exc)


def watchdog_seconds() -> float | None:
    """Return how often systemd wants a sign of life from this process, None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdecimal() and int(text) else None


# Units ---------------------------------------------------------------------------------------------------------------


def unit(description: str, command: Sequence[str], folder: Path, writable: Path, *, user: bool = False) -> str:
    """Return a hardened unit that runs a command in a folder; it may write below ``writable`` only."""
    return _UNIT.format(
        description=_plain(description),
        command=" ".join(map(_quoted, command)),
        folder=_plain(str(folder)),
        writable=_quoted(str(writable)),
        target="default.target" if user else "multi-user.target",
    )


def install(name: str, text: str, *, user: bool = False) -> Path:
    """Write a unit, have systemd enable and start it, and return its file; raises ClickException."""
    file = unit_folder(user=user) / f"{name}.service"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as exc:
        raise click.ClickException(f"{file} cannot be written: {exc.strerror}; --print shows the unit") from exc
    _systemctl("daemon-reload", user=user)
    _systemctl("enable", "--now", file.name, user=user)
    return file


def uninstall(name: str, *, user: bool = False) -> Path:
    """Stop and remove a unit, and return its file; raises ClickException."""
    file = unit_folder(user=user) / f"{name}.service"
    if not file.exists():
        raise click.ClickException(f"there is no {file}")
    _systemctl("disable", "--now", file.name, user=user)
    file.unlink()
    _systemctl("daemon-reload", user=user)
    return file


def unit_folder(*, user: bool) -> Path:
    """Return where units of the system, or of this user, are."""
    if not user:
        return Path("/etc/systemd/system")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _systemctl(*arguments: str, user: bool) -> None:
    program = shutil.which("systemctl")
    if program is None:
        raise click.ClickException("there is no systemctl here; --print shows the unit")
    command = [program, *(["--user"] if user else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def _plain(text: str) -> str:
    if not text.isprintable():
        raise InvalidOption("unit", "cannot hold a control character", text)
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """Return a word as systemd.service(5) reads it: neither a specifier, nor a variable, nor several words."""
    return '"' + _plain(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'
