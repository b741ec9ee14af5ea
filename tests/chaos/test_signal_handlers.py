"""Signal handlers that use the client while its own thread is in the middle of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import lightlink

if TYPE_CHECKING:
    from conftest import StartPython

HANDLERS = """
    import collections, signal, sys, threading, time
    import lightlink


    url, name = sys.argv[1:]
    said = collections.Counter()
    pauses, inside = [], []
    with lightlink.Service(name, url) as service, lightlink.connect(url) as client:
        over = threading.Event()

        def keep_calling():
            while not over.is_set():
                started = time.monotonic()
                try:
                    client.call(name, "none", timeout=60)
                except lightlink.MethodNotFound:
                    pass
                pauses.append(time.monotonic() - started)

        def on_signal(number, frame):
            if inside:
                return
            inside.append(1)
            for use in (client.flush, lambda: client.call(name, "none", timeout=60), lambda: client.publish(name, 1)):
                try:
                    use()
                    said["done"] += 1
                except lightlink.NotReady as exc:
                    assert "signal handler" in str(exc)
                    said["refused"] += 1
                except lightlink.MethodNotFound:
                    said["done"] += 1
            inside.clear()

        caller = threading.Thread(target=keep_calling)
        caller.start()
        signal.signal(signal.SIGALRM, on_signal)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while said["done"] < 3000 or said["refused"] < 20:
            for _ in range(50):
                client.publish(name, 1)
        signal.setitimer(signal.ITIMER_REAL, 0)
        over.set()
        caller.join()
        client.flush()
    print("done", said["refused"] > 0, max(pauses) < 30)
"""


def test_a_signal_handler_may_not_wait_for_what_it_interrupted(python: StartPython, url: str, prefix: str) -> None:
    done = python(HANDLERS, url, prefix).wait(60)
    assert done.stdout == "done True True\n", done.stderr


def test_waiting_with_the_outbox_in_hand_is_refused(url: str) -> None:
    with lightlink.connect(url) as client:
        session = client._connection.session
        with session.outbox._lock:
            for use in (client.flush, lambda: client.call("a", "b"), lambda: client.subscribe("a")):
                with pytest.raises(lightlink.NotReady, match="signal handler"):
                    use()
            client.publish("a", 1)
        client.flush()
