"""A PostgreSQL server of a test's own, which can be restarted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.ports import free_port

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


def programs() -> Path:
    """Return the folder of PostgreSQL's programs; skips without one, and fails in CI, which installs it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    if not folders:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("there is no PostgreSQL here: apt-get install postgresql")
    return folders[-1]


class Postgres:
    """A server on a free port of this machine, with a folder of its own. A context manager."""

    def __init__(self) -> None:
        self._bin = programs()
        # Not below pytest's: it closes that folder to other users whenever another session begins.
        self._folder = Path(tempfile.mkdtemp(prefix="lightlink-postgres-"))
        # It refuses to run as root.
        self._as: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self._folder, "postgres")
        self.port = free_port()
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-U", "shop", "-A", "trust", "-N", "-E", "UTF8")

    @property
    def environment(self) -> dict[str, str]:
        """What libpq reads to reach its database ``postgres``."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "shop", "PGDATABASE": "postgres"}

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it, and cut its connections."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "fast", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        # No pipes: the server would hold them open.
        log = self._folder / "commands"
        with log.open("ab") as out:
            done = subprocess.run(command, stdout=out, stderr=out, check=False, cwd="/", timeout=60, **self._as)
        assert done.returncode == 0, log.read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder)
