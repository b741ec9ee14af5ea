"""Processes that may have no more threads, files or memory for a while: typed errors, and all goes on afterwards."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import StartPython

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a process")

LIMITS = """
    import resource, sys, threading
    import lightlink
    from lightlink.commands import Agent, CommandManager

    def limit():
        # Room for everything but the stack of another thread.
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        threading.stack_size(1024 * 1024 * 1024)
        resource.setrlimit(resource.RLIMIT_AS, (used + 512 * 1024 * 1024, resource.RLIM_INFINITY))

    def lift():
        threading.stack_size(0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    url, name = sys.argv[1:]
"""

GOES_ON = (
    LIMITS
    + """
    arrived = threading.Event()
    with lightlink.connect(url) as client, CommandManager(client) as manager:
        service = lightlink.Service(name, client)
        service.rpc("add")(lambda a, b: a + b)
        service.on(name)(lambda data: arrived.set())
        agent = Agent(name, client)
        agent.command("work")(lambda: "done")
        client.subscribe(name, lambda data: arrived.set())
        service.start()
        agent.start()
        limit()
        print("limited", client.call(name, "add", {"a": 1, "b": 2}))
        client.publish(name, 1)
        print("event", arrived.wait(30))
        print("command", manager.send(name, "work").result(30))
        print("future", client.submit(name, "add", {"a": 1, "b": 2}).result(30))
        lift()
        arrived.clear()
        print("lifted", client.call(name, "add", {"a": 1, "b": 2}))
        client.publish(name, 1)
        print("event", arrived.wait(30))
        print("command", manager.send(name, "work").result(30))
        agent.stop()
        service.stop()
"""
)


def test_what_was_started_goes_on_without_more_threads(python: StartPython, url: str, prefix: str) -> None:
    done = python(GOES_ON, url, prefix).wait(60)
    assert done.stdout.splitlines() == [
        "limited 3",
        "event True",
        "command done",
        "future 3",
        "lifted 3",
        "event True",
        "command done",
    ], done.stderr


STARTS = (
    LIMITS
    + """
    from lightlink.errors import ResourceExhausted

    def refused(start):
        try:
            start()
        except ResourceExhausted as exc:
            return "can't start" in str(exc)
        return False

    with lightlink.connect(url) as client:
        service = lightlink.Service(name, client)
        service.rpc("add")(lambda a, b: a + b)
        other = lightlink.Service(name + "-2", url)
        limit()
        print(refused(lambda: lightlink.connect(url)), refused(service.start), refused(other.start))
        print(refused(lambda: client.subscribe(name, print)), refused(lambda: CommandManager(client)))
        lift()
        again = lightlink.Service(name, client)
        again.rpc("add")(lambda a, b: a + b)
        with again:
            print(client.call(name, "add", {"a": 1, "b": 2}))
        with lightlink.connect(url) as another, CommandManager(client), client.subscribe(name, print):
            another.flush()
            print("all goes on")
        print([t.name for t in threading.enumerate() if name in t.name])
"""
)


def test_what_cannot_be_started_says_so_where_it_is_started(python: StartPython, url: str, prefix: str) -> None:
    done = python(STARTS, url, prefix).wait(60)
    assert done.stdout.splitlines() == ["True True True", "True True", "3", "all goes on", "[]"], done.stderr


FILES = """
    import os, resource, sys
    import lightlink
    from lightlink.errors import ConnectError, ResourceExhausted

    url = sys.argv[1]
    lightlink.connect(url).close()  # what is imported late is there
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for spare in range(9):  # each fails elsewhere: at the loop's selector, its wake-up, the socket
        try:
            lightlink.connect(url).close()
        except (ConnectError, ResourceExhausted) as exc:
            assert "oo many open files" in str(exc), exc
        os.close(held.pop())
    for _ in range(8):
        os.close(held.pop())
    with lightlink.connect(url) as client:
        client.flush()
    print("done")
"""


def test_a_process_without_a_file_left_gets_an_error_of_ours(python: StartPython, url: str) -> None:
    done = python(FILES, url).wait(60)
    assert done.stdout == "done\n", done.stderr
