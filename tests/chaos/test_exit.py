"""However a program ends, it ends soon, and what it has published is delivered if it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import lightlink
from lightlink.concurrency.threads import pause

if TYPE_CHECKING:
    from conftest import StartPython
    from helpers.raw import RawPeer

# What a program is at when its main thread comes to its end. Nothing is closed.
SITUATIONS = {
    "nothing else": "",
    "a subscription whose handler is busy": """
        @client.on(f"{name}.more")
        def wait(data):
            begun.set()
            forever.wait()

        client.publish(f"{name}.more", 1)
        begun.wait()
    """,
    "a service whose handler is busy": """
        service = lightlink.Service(name, client)

        @service.rpc
        def wait():
            begun.set()
            forever.wait()

        service.start()
        client.submit(name, "wait", timeout=60)
        begun.wait()
    """,
    "calls, flushes and reads in other threads": """
        received = client.subscribe(f"{name}.more")
        watch = client.watch_state(f"{name}.*")
        for wait in (received.get, watch.get, lambda: client.call("nobody", "nothing", retry=patient)):
            threading.Thread(target=wait, daemon=True).start()
    """,
    "closing as the interpreter ends": """
        import atexit
        atexit.register(client.close)
    """,
    "closing when everything is torn down": """
        service = lightlink.Service(name, client).start()
        watch, sub = client.watch_state(f"{name}.*"), client.subscribe(f"{name}.more")
        refused = lightlink.ClosedError

        class Holder:
            def __del__(self):
                for wait in (client.flush, sub.get, watch.get, lambda: client.call(name, "none")):
                    try:
                        wait()
                    except refused:
                        pass
                service.stop()
                watch.stop()
                sub.stop()
                client.close()
                client.close()

        holder = Holder()
    """,
    "a client in a cycle of references": """
        cycle = [client]
        cycle.append(cycle)
        client.subscribe(f"{name}.more", cycle.append)
    """,
    "a fault": "raise ZeroDivisionError",
    "sys.exit": "sys.exit(3)",
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_program_ends_and_what_it_published_is_delivered(
    situation: str, python: StartPython, url: str, prefix: str, peer: RawPeer
) -> None:
    sub = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    process = python(
        f"""
        import sys, threading
        import lightlink

        url, name = sys.argv[1:]
        begun, forever = threading.Event(), threading.Event()
        patient = lightlink.Retry(attempts=1000, backoff=60)
        client = lightlink.connect(url)
        for number in range(1000):
            client.publish(name, number)
        {SITUATIONS[situation]}
        """,
        url,
        prefix,
    )
    finished = process.wait(30)
    assert finished.returncode == {"a fault": 1, "sys.exit": 3}.get(situation, 0), finished.stderr
    assert finished.stderr == "" or situation == "a fault"
    for number in range(1000):
        assert peer.run(sub.next_msg(timeout=30)).data == str(number).encode()


# What has become of the connection by then.
OUTAGES = {
    "the server is gone": "link.stop()",
    "the connection is half open": "link.half_open()",
    "the network hangs": "link.pause()",
    "the resolver hangs": """
        hang.set()
        link.cut()
        asked.wait()
    """,
}


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("closing", ["client.close(timeout=1)", ""], ids=["closing", "not_closing"])
def test_a_program_ends_in_an_outage_too(outage: str, closing: str, python: StartPython, url: str) -> None:
    process = python(
        f"""
        import socket, sys, threading
        import lightlink
        from helpers.edge import proxy_before

        hang, asked, forever, resolve = threading.Event(), threading.Event(), threading.Event(), socket.getaddrinfo

        def answer(host, *args, **kwargs):
            if host == "nats.example" and hang.is_set():
                asked.set()
                forever.wait()
            return resolve("127.0.0.1" if host == "nats.example" else host, *args, **kwargs)

        socket.getaddrinfo = answer
        link = proxy_before(sys.argv[1])
        client = lightlink.connect(link.url.replace("127.0.0.1", "nats.example"))
        {OUTAGES[outage]}
        client.publish("any", 1)
        {closing}
        """,
        url,
    )
    finished = process.wait(30)
    assert finished.returncode == 0, finished.stderr


LATE = """
    import os, sys
    import lightlink
    from lightlink import LightLinkError

    url, name = sys.argv[1:]
    client = lightlink.connect(url)
    other = lightlink.connect(url, name="other")

    class Holder:
        def __del__(self):
            uses = {
                "submit": lambda: client.submit(name, "m", timeout=60).result(),
                "call": lambda: client.call(name, "m", timeout=60),
                "flush": lambda: client.flush(60),
                "subscribe": lambda: client.subscribe(name),
                "handle": lambda: client.subscribe(name, print),
                "state": lambda: client.state().get("a", timeout=60),
                "set": lambda: client.set_state("a", 1, timeout=60),
                "files": lambda: client.files(),
                "upload": lambda: client.upload(sys.executable),
                "connect": lambda: lightlink.connect(url),
                "close": lambda: other.close(),
            }
            for what, use in uses.items():
                try:
                    use()
                    said = "nothing"
                except LightLinkError as exc:
                    said = type(exc).__name__
                except BaseException as exc:
                    said = repr(exc)
                os.write(1, f"{what} {said}\\n".encode())

    sys.modules["late"] = Holder()  # goes when the interpreter tears everything down
"""


def test_errors_in_a_destructor_at_exit_are_ours_and_immediate(python: StartPython, url: str, prefix: str) -> None:
    done = python(LATE, url, prefix, options=()).wait(60)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert told.pop("close") == "nothing"
    assert len(told) == 10
    assert set(told.values()) == {"ClosedError"}, told


AT_EXIT = """
    import atexit, os, sys
    import lightlink

    url, name = sys.argv[1:]
    lightlink.Client  # what is imported late is there

    def late():
        try:
            with lightlink.connect(url) as client:
                client.publish(name, "late")
                client.flush()
            said = "done"
        except lightlink.LightLinkError as exc:
            said = type(exc).__name__
        os.write(1, said.encode())

    atexit.register(late)
"""


def test_connecting_at_exit_works_or_is_an_error_of_ours(python: StartPython, url: str, prefix: str) -> None:
    done = python(AT_EXIT, url, prefix).wait(60)
    assert done.stdout in ("done", "ClosedError", "ConnectError"), done.stderr


@pytest.mark.parametrize("loop", ["", "import uvloop"])
def test_what_comes_when_python_is_gone_crashes_nothing(loop: str, python: StartPython, url: str, prefix: str) -> None:
    """As it may be on a busy machine, the process goes on for a second once nothing is left of Python."""
    code = f"""
        {loop}
        import ctypes, sys
        import lightlink
        libc = ctypes.CDLL(None)
        libc.on_exit(libc.sleep, None)  # called with the exit code
        client = lightlink.connect(sys.argv[1])
        client.subscribe(sys.argv[2], print)
        client.flush()
        print("ready", flush=True)
        sys.exit(1)
    """
    with lightlink.connect(url) as client:
        process = python(code, url, prefix)
        process.wait_line("ready")
        while not process.has_ended:
            client.publish(prefix, 1)
            pause(0.4)  # mostly none comes while Python takes itself down
        result = process.wait()
    assert (result.returncode, result.stderr) == (1, "")
