from __future__ import annotations

import gc
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import alive
from helpers.raw import read_info
from helpers.waiting import eventually

from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from conftest import StartPython, StartServer


PARENT = """
import os, signal, sys
from lightlink.server import EmbeddedServer

server = EmbeddedServer().start()
print("server", server.pid, flush=True)
print("files", server.log_file.parent, flush=True)
"""


def follow(process: Any) -> tuple[int, Path]:
    return int(process.wait_line("server")), Path(process.wait_line("files"))


def expect_gone(pid: int, files: Path) -> None:
    eventually(lambda: not alive(pid), timeout=30)
    eventually(lambda: not files.exists(), timeout=30)


def test_the_server_ends_when_its_parent_is_killed(python: StartPython) -> None:
    process = python(PARENT + "input()")
    pid, files = follow(process)
    assert alive(pid)
    process.signal(signal.SIGKILL)
    expect_gone(pid, files)


@pytest.mark.parametrize(
    "ending",
    ["", "sys.exit(3)", "raise ValueError", "os._exit(0)", "os.abort()", "os.kill(os.getpid(), signal.SIGTERM)"],
)
def test_the_server_ends_with_its_parent(ending: str, python: StartPython) -> None:
    process = python(PARENT + ending)
    pid, files = follow(process)
    process.wait()
    expect_gone(pid, files)


def test_a_normal_exit_waits_silently_for_the_servers_end(python: StartPython) -> None:
    process = python(PARENT)
    pid, files = follow(process)
    result = process.wait()
    assert (result.returncode, result.stderr) == (0, "")
    assert not alive(pid)
    assert not files.exists()


def test_a_server_that_nobody_holds_any_more_ends() -> None:
    server = EmbeddedServer().start()
    pid = server.pid
    del server
    gc.collect()
    assert not alive(pid)


def test_the_server_outlives_the_thread_that_started_it(fresh_server: StartServer) -> None:
    started: list[EmbeddedServer] = []
    thread = threading.Thread(target=lambda: started.append(fresh_server()))
    thread.start()
    thread.join()
    # Python's join() returns a little before the kernel's thread, and a signal sent at its death, are gone.
    eventually(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    assert read_info(started[0].port)["port"] == started[0].port
    assert started[0].running


def test_the_exit_of_a_forked_child_leaves_the_server_alone(python: StartPython) -> None:
    process = python(
        PARENT
        + """
from lightlink.errors import NotReady
child = os.fork()
if child == 0:
    assert server.url
    assert not server.running
    for operate in (server.start, server.kill, server.restart):
        try:
            operate()
        except NotReady as exc:
            assert "forked" in str(exc)
        else:
            raise AssertionError
    server.stop()
    sys.exit(7)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print("running", server.running, flush=True)
input()
"""
    )
    pid, files = follow(process)
    assert process.wait_line("child") == "7"
    assert process.wait_line("running") == "True"
    assert alive(pid)
    process.send_line()
    assert process.wait().stderr == ""
    expect_gone(pid, files)


def test_a_forked_child_that_lives_on_does_not_keep_the_server(python: StartPython) -> None:
    process = python(
        PARENT
        + """
if os.fork() == 0:
    print("child", os.getpid(), flush=True)
    signal.pause()
signal.pause()
"""
    )
    pid, files = follow(process)
    child = int(process.wait_line("child"))
    process.signal(signal.SIGKILL)
    expect_gone(pid, files)
    assert alive(child)


def test_ctrl_c_reaches_the_parent_and_not_the_server(python: StartPython) -> None:
    process = python(
        """
        import os, signal
        from lightlink.server import EmbeddedServer

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with EmbeddedServer() as server:
            try:
                print("server", server.pid, os.getpgid(server.pid) == os.getpgid(0), flush=True)
                signal.pause()
            except KeyboardInterrupt:
                print("interrupted", server.running, flush=True)
                input()
        """
    )
    pid, same_group = process.wait_line("server").split()
    assert same_group == "False"
    process.signal_group(signal.SIGINT)
    assert process.wait_line("interrupted") == "True"
    assert alive(int(pid))
    process.send_line()
    result = process.wait()
    assert (result.returncode, result.stderr) == (0, "")
    assert not alive(int(pid))


def test_a_killed_watchdog_does_not_disturb_stop(fresh_server: StartServer) -> None:
    server = fresh_server()
    pid = server.pid
    watchdog = server._process._watchdog  # type: ignore[union-attr]
    assert watchdog is not None
    watchdog.kill()
    watchdog.wait(30)
    server.stop()
    assert not alive(pid)
