"""Put units of systemd in place, and take them away."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click


def install(name: str, text: str, *, user: bool = False) -> Path:
    """Write a unit, have systemd enable and start it, and return its file; raises ClickException.

    One that was there and differed is started again: systemd goes on with what runs.
    """
    file = unit_folder(user=user) / f"{name}.service"
    try:
        differs = file.exists() and file.read_text() != text
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as exc:
        raise click.ClickException(f"{file} cannot be written: {exc.strerror}; --print shows the unit") from exc
    _systemctl("daemon-reload", user=user)
    _systemctl("enable", "--now", file.name, user=user)
    if differs:
        _systemctl("restart", file.name, user=user)
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
