"""Processes that may have no more threads, files or memory for a while: typed errors, and all goes on afterwards."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import StartPython, StartServer

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


# What starts threads: each returns what ends it again.
STARTERS = {
    "connect": "lightlink.connect(url).close",
    "service": "started(adder(url))",
    "service of a client": "started(adder(client))",
    "registered service": "started(adder(client, registry=True))",
    "agent": "started(worker(url))",
    "agent of a client": "started(worker(client))",
    "manager": "CommandManager(client).close",
    "commands watched": "watched(client)",
    "orchestrator": "Orchestrator(client).close",
    "subscription": "client.subscribe(name, print).stop",
    "watch": "client.watch_state(handler=print).stop",
    "leader": "client.leader(name, ttl=600).stop",
    "lock": "taken(client.lock(name, ttl=600))",
    "consumer": "consumed(client)",
    "consumer by hand": "fetched(client)",
    "HTTP server": "served(client)",
}

# Room for ``more`` threads.
LIMITS_AT = LIMITS.replace("limit():", "limit(more):").replace(
    "512 * 1024 * 1024", "512 * 1024 * 1024 + more * 1024**3"
)

_QUICK = ("connect", "service", "agent", "watch", "consumer")

STARTS_AT = (
    LIMITS_AT
    + """
    import os, signal
    from helpers.waiting import eventually
    from lightlink.errors import ResourceExhausted
    from lightlink.http import create_app, serve
    from lightlink.runs import Orchestrator

    def started(runnable):
        runnable.start()
        return runnable.stop

    def adder(target, **options):
        service = lightlink.Service(name, target, **options)
        service.on(name)(print)
        return service

    def worker(target):
        agent = Agent(name, target)
        agent.command("work")(lambda: "done")
        return agent

    def taken(lock):
        assert lock.acquire()  # and so nobody has it whose start has failed
        return lock.release

    def watched(client):
        manager = CommandManager(client)
        try:
            manager.watch()
        except BaseException:
            manager.close()
            raise
        return manager.close

    def consumed(client):
        client.consume("orders.>", name="billing")(print)
        return lambda: [each.stop() for each in client.subscriptions]

    def fetched(client):
        consumer = client.consumer("ORDERS", "by-hand")
        assert list(consumer.fetch(1, timeout=0.01)) == []
        return consumer.close

    def served(client):
        with CommandManager(client) as manager:
            serve(create_app(manager), "127.0.0.1:0", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        return lambda: None

    def held():
        files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        sockets = sum(os.path.islink(file) and os.readlink(file).startswith("socket") for file in files)
        return sockets, {t for t in threading.enumerate() if not t.name.startswith("lightlink-client-")}

    refused = 0
    for more in (0, 1, 2, 3, 4, 5, 6):
        with lightlink.connect(url) as client:
            client.stream("ORDERS", ["orders.>"])
            client.consume("orders.>", name="by-hand")(print)
            [each.stop() for each in client.subscriptions]
            client.set_state("key", 1)
            before = held()
            limit(more)
            try:
                end = START
            except ResourceExhausted as exc:
                assert "can't start new thread" in str(exc)
                refused += 1
            else:
                end()
            finally:
                lift()
            eventually(lambda: held()[0] <= before[0] and held()[1] <= before[1], 30)
            (START)()
    print(refused > 0)
"""
)


@pytest.mark.parametrize(
    "what", [each if each in _QUICK else pytest.param(each, marks=pytest.mark.slow) for each in STARTERS]
)
def test_what_may_start_only_some_threads_leaves_none(
    what: str, python: StartPython, fresh_server: StartServer
) -> None:
    """At the first, the second, ... thread it is refused by name, nothing is half open, and it works afterwards."""
    done = python(STARTS_AT.replace("START", STARTERS[what]), fresh_server().url, "limited").wait(100)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr
