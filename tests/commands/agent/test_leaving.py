"""An agent that ends without `stop`: its id is free at once, its programs end with it, and nobody is pestered."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.pki import tls_of
from helpers.process import alive, command_line, descendants
from helpers.waiting import eventually

from lightlink.commands import Agent, CommandManager
from lightlink.commands.agent.agent import Stage

if TYPE_CHECKING:
    from conftest import StartPython, StartServer
    from helpers.commands import World

    from lightlink.certs import CertificateAuthority

AGENT = """
    import os, sys, threading
    import lightlink
    from lightlink.commands import Agent, executors

    url, client_id, how = sys.argv[1:4]
    agent = Agent(client_id, url, workers=1)
    begun = threading.Event()

    @agent.command("wait")
    def wait():
        begun.set()
        threading.Event().wait(60)

    executors.exec_shell(agent, ["sh"], timeout=600)
    agent.start()
    print("ready", flush=True)
    sys.stdin.readline()
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("oh")
    if how == "child":
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
        print("child ended", flush=True)
        sys.stdin.readline()
    # or the end of the program
"""


@pytest.mark.parametrize("how", ["return", "exit", "raise"])
def test_an_id_is_given_back_when_the_program_just_ends(
    python: StartPython, world: World, manager: CommandManager, url: str, prefix: str, how: str
) -> None:
    process = python(AGENT, url, prefix, how)
    process.wait_line("ready")
    assert [each.client_id for each in manager.clients()] == [prefix]
    waiting = manager.send(prefix, "wait")
    eventually(lambda: manager.get(waiting.command_id).status == "executing")
    queued = manager.send(prefix, "later")
    process.send_line()
    process.wait()
    assert manager.clients() == []
    # Nobody has to wait for the id, nor for what had waited there.
    agent = world.agent(prefix)
    agent.register("later", lambda: "done")
    agent.start(timeout=30)
    assert queued.result(30) == "done"


def test_a_forked_child_that_ends_gives_nothing_back(
    python: StartPython, manager: CommandManager, url: str, prefix: str
) -> None:
    process = python(AGENT, url, prefix, "child", options=())
    process.wait_line("ready")
    process.send_line()
    process.wait_line("child ended")
    assert [each.client_id for each in manager.clients()] == [prefix]
    process.send_line()
    process.wait()
    assert manager.clients() == []


@pytest.mark.skipif(sys.platform != "linux", reason="what has left its session is found in /proc")
@pytest.mark.parametrize("how", ["exit", signal.SIGKILL, signal.SIGTERM])
def test_a_program_does_not_outlive_its_agent(
    python: StartPython, manager: CommandManager, url: str, prefix: str, tmp_path: Path, how: str | signal.Signals
) -> None:
    process = python(AGENT, url, prefix, "exit")
    process.wait_line("ready")
    ids = tmp_path / "ids"
    escaped = f"setsid sh -c 'echo $$ >> {ids}; exec sleep 300' &"
    manager.send(prefix, "exec_shell", {"argv": ["sh", "-c", f"echo $$ >> {ids}; {escaped} sleep 300"]}, timeout=600)
    pids = eventually(lambda: found if len(found := _numbers(ids)) == 2 else None)
    assert all(alive(pid) for pid in pids)
    if isinstance(how, signal.Signals):
        os.kill(process.pid, how)
    else:
        process.send_line()
    eventually(lambda: not any(alive(pid) for pid in pids))


def _numbers(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_the_watchdog_is_one_and_forgets_what_has_ended(
    python: StartPython, manager: CommandManager, url: str, prefix: str
) -> None:
    process = python(AGENT, url, prefix, "return")
    process.wait_line("ready")
    for _ in range(3):
        assert manager.send(prefix, "exec_shell", {"argv": ["sh", "-c", "exit 0"]}).result(30)["exit_code"] == 0
    watchdogs = [pid for pid in descendants(process.pid) if b"marks=" in command_line(pid)]
    assert len(watchdogs) == 1
    process.send_line()
    process.wait()
    eventually(lambda: not alive(watchdogs[0]))


def test_an_agent_that_may_make_no_streams_asks_seldom(
    fresh_server: StartServer, authority: CertificateAuthority
) -> None:
    folder = authority.directory
    authority.issue_server(["127.0.0.1"])
    authority.issue("press", "agent")
    authority.issue("manager", "manager")
    server = fresh_server(tls=folder)
    import lightlink

    with lightlink.connect(server.url, tls=tls_of(folder, "manager")) as client, CommandManager(client) as manager:
        agent = Agent("press", server.url, tls=tls_of(folder, "press"))
        agent.command("work")(lambda: "done")
        with agent:
            # Each second it hears that nobody has made its consumer.
            pulls = agent._runner._deliveries._pulls  # type: ignore[union-attr]
            eventually(lambda: pulls._number >= 4)
            refused = server.log_file.read_text().count("STREAM.CREATE")
            assert refused <= 1
            assert agent.stage is Stage.RUNNING
            assert manager.send("press", "work").result(30) == "done"
