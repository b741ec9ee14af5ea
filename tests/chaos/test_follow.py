"""What receives, and a fork: it follows where it was asked to, starts where it is told to, and else says so."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from conftest import StartPython, StartServer

FORK = ("-W", "error", "-W", "ignore:This process .* is multi-threaded:DeprecationWarning")

START = """
    import logging, os, sys, threading, time, traceback
    import lightlink
    from lightlink.commands import Agent, CommandManager

    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    url, name = sys.argv[1:]

    def in_child(function):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                function()
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
"""

STAYS = (
    START
    + """
    with lightlink.connect(url) as client:
        service = lightlink.Service(name, client)
        service.rpc("pid")(os.getpid)
        agent = Agent(name, client)
        agent.command("pid")(os.getpid)
        subscription = client.subscribe(name, print)
        service.start()
        agent.start()
        parent = os.getpid()

        def child():
            client.flush()
            for each in (service, agent, subscription):
                print("in the parent process" in repr(each))
            print(service.stage.value, agent.stage.value)
            with lightlink.connect(url) as other:
                print(other.call(name, "pid") == parent)
            service.start()  # beside the parent's
            mine = os.getpid()
            while client.call(name, "pid") != mine:
                pass
            service.stop()
            print("served here")

        in_child(child)
        print(client.call(name, "pid") == parent, service.stage.value)
        agent.stop()
        service.stop()
    """
)


def test_what_stays_behind_says_so_and_can_be_started(python: StartPython, url: str, prefix: str) -> None:
    done = python(STAYS, url, prefix, options=FORK).wait()
    lines = done.stdout.splitlines()
    assert lines[1:] == ["True", "True", "True", "not started not started", "True", "served here", "True running"], (
        done.stdout,
        done.stderr,
    )
    assert "forked from" in lines[0]
    assert all(kind in lines[0] for kind in ("<Service", "<Agent", "<Subscription"))


FOLLOWS = (
    START
    + """
    heard = threading.Event()
    hooked = threading.Event()
    with lightlink.connect(url) as client:
        service = lightlink.Service(name, client, after_fork=True)
        service.rpc("pid")(os.getpid)
        service.start()

        @client.on(name, after_fork=True)
        def hear(data):
            heard.set()

        client.after_fork(lambda client: hooked.set())

        def child():
            mine = os.getpid()
            with lightlink.connect(url) as other:
                seen = {other.call(name, "pid", timeout=10) for _ in range(200)}
                while mine not in seen:
                    seen.add(other.call(name, "pid", timeout=10))
                while not heard.is_set():
                    other.publish(name, 1)
                    heard.wait(0.1)
            print("all follow", hooked.wait(30), len(seen))

        in_child(child)
        in_child(child)
        service.stop()
    """
)


@pytest.mark.tcp("that a process has ended without a word is known at once over TCP only")
def test_what_is_asked_to_follow_receives_in_each_child(python: StartPython, url: str, prefix: str) -> None:
    done = python(FOLLOWS, url, prefix, options=FORK).wait(60)
    assert done.stdout.splitlines() == ["all follow True 2"] * 2, done.stderr


COUNTS = (
    START
    + """
    with lightlink.connect(url) as client:
        service = lightlink.Service(name, client, after_fork=True)
        service.register("pid", os.getpid)
        service.start()
        for _ in range(3):
            client.call(name, "pid")
        client.call(name, "_describe")

        def child():
            with lightlink.connect(url) as other:
                began = []
                while len(began) < 2:  # it is begun in the child on a thread of its own, and an answer may be missing
                    (found,) = other.services(name, timeout=1, expect=2) or [None]
                    began = [each.started for each in found.instances if each.started] if found else []
                print(len(began), found.requests, began[0] != began[1], service.stats.methods)

        in_child(child)
        print(service.stats.methods["pid"].requests)
        service.stop()
    """
)


@pytest.mark.tcp("that a process has ended without a word is known at once over TCP only")
def test_what_the_parent_has_served_is_not_counted_again(python: StartPython, url: str, prefix: str) -> None:
    done = python(COUNTS, url, prefix, options=FORK).wait(60)
    assert done.stdout.count("\n") == 2, (done.stdout, done.stderr)
    in_child, in_parent = done.stdout.splitlines()
    assert in_child.startswith("2 3 True {'pid': MethodStats(requests=0,"), (done.stdout, done.stderr)
    assert in_parent == "3"


DAEMON = (
    START
    + """
    client = lightlink.connect(url)
    service = lightlink.Service(name, client, after_fork=True)
    service.rpc("pid")(os.getpid)
    options = lightlink.StoreOptions(heartbeat=0.3, ack_wait=1.0)  # the first agent's claim ends soon after it
    agent = Agent(name, client, store=options)
    agent.command("pid")(os.getpid)
    manager = CommandManager(client, store=options)
    service.start()
    agent.start()

    # As old daemons detach: twice, and the parents end at once.
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    agent.start(timeout=60)
    print("daemon", os.getpid(), flush=True)
    print("command", manager.send(name, "pid").result(60) == os.getpid(), flush=True)
    time.sleep(60)
    """
)


@pytest.mark.tcp("that a process has ended without a word is known at once over TCP only")
def test_a_daemon_that_forks_twice_goes_on_as_the_last_of_them(
    python: StartPython, fresh_server: StartServer, prefix: str
) -> None:
    url = fresh_server().url
    process = python(DAEMON, url, prefix, options=FORK)
    pid = int(process.wait_line("daemon", timeout=60).split()[-1])
    assert process.wait_line("command", timeout=60).split()[-1] == "True"
    try:
        with lightlink.connect(url) as client:
            eventually(lambda: _served_by(client, prefix) == pid)
    finally:
        os.kill(pid, signal.SIGKILL)  # it has left the group of processes that ends with the test


def _served_by(client: lightlink.Client, name: str) -> object:
    try:
        return client.call(name, "pid", timeout=30)
    except lightlink.ServiceUnavailable:
        return None  # it follows in a moment
