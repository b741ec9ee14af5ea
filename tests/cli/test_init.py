"""As process 1 of a PID namespace, as in a container: orphans are reaped, SIGTERM is obeyed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from conftest import StartPython

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc")
SERVICE = """
import os, signal, subprocess
from pathlib import Path

import lightlink

service = lightlink.Service(os.environ["SERVICE"])


@service.rpc
def orphan() -> int:
    "Leave behind a process that has ended, and whose parent has."
    pid = int(subprocess.check_output(["sh", "-c", "sleep 60 >/dev/null & echo $!"]))
    os.kill(pid, signal.SIGKILL)
    return pid


@service.rpc
def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@service.rpc
def own_child() -> int:
    return subprocess.run(["sh", "-c", "exit 3"]).returncode


@service.rpc
def pids() -> list[int]:
    return [os.getpid(), os.getppid()]
"""
START = """
    import os, sys
    os.chdir(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    allowed = shutil.which("unshare") and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0
    if not allowed and not os.environ.get("CI"):
        pytest.skip("PID namespaces may not be made here")


def first_process(unshare: int) -> int:
    """Return the process that is 1 in the namespace, by the number that it has here."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    return int(eventually(children.read_text))


def test_the_command_reaps_orphans_and_obeys_sigterm(
    python: StartPython, url: str, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "first.py").write_text(SERVICE)
    command = ("-m", "lightlink.cli", "run", "first:service", "--url", url)
    process = python(START, tmp_path, *UNSHARE, sys.executable, *command, env={"SERVICE": prefix}, options=())
    with lightlink.connect(url) as client:
        eventually(lambda: bool(client.services(prefix, timeout=1)))
        pid, parent = client.call(prefix, "pids")
        assert (parent, pid > 1) == (1, True)

        orphan = client.call(prefix, "orphan")

        eventually(lambda: not client.call(prefix, "is_there", {"pid": orphan}))
        assert client.call(prefix, "own_child") == 3
        os.kill(first_process(process.pid), signal.SIGTERM)
        done = process.wait()
        assert done.returncode == 0, done.stderr
        with pytest.raises(lightlink.ServiceUnavailable):
            client.call(prefix, "pids")


def test_a_program_of_its_own_obeys_sigterm_as_process_1(
    python: StartPython, url: str, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "first.py").write_text(f"{SERVICE}\nservice.run()\n")
    env = {"SERVICE": prefix, "LIGHTLINK_URL": url}
    process = python(START, tmp_path, *UNSHARE, sys.executable, "first.py", env=env, options=())
    with lightlink.connect(url) as client:
        eventually(lambda: bool(client.services(prefix, timeout=1)))
        assert client.call(prefix, "pids")[0] == 1

        os.kill(first_process(process.pid), signal.SIGTERM)

        done = process.wait()
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_its_exit_code_is_that_of_the_command(python: StartPython, tmp_path: Path, code: str, expected: int) -> None:
    program = f"import os; from lightlink.cli.processes.init import leave_init; leave_init(); {code}"
    process = python(START, tmp_path, *UNSHARE, sys.executable, "-c", program, options=())
    assert process.wait().returncode == expected
