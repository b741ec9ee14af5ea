"""Processes that fork, as prefork servers and multiprocessing do: each side goes on, and neither disturbs the other."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING

import pytest
from helpers.process import run_python
from helpers.waiting import eventually

import lightlink
from chaos.ledger import Calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython
    from helpers.raw import RawPeer

    from chaos.ledger import Ledger

# Python 3.12 and later warn of every fork of a process with threads.
FORKING = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")

# How a child may come to its end.
ENDS = {
    "_exit": "os._exit(0)",
    "exit": "sys.exit(0)",
    "crash": "faulthandler.disable(); os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "faulthandler.disable(); os.abort()",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.fixture
def echo(url: str, prefix: str) -> Iterator[collections.Counter[str]]:
    """A service whose method ``echo`` returns the text it is given; what it was given is counted."""
    seen: collections.Counter[str] = collections.Counter()
    service = lightlink.Service(prefix, url, workers=4)

    @service.rpc
    def echo(text: str) -> str:
        seen[text] += 1
        return text

    with service:
        yield seen


@pytest.mark.parametrize("end", ENDS)
def test_parent_and_child_go_on_with_a_client_used_before(
    end: str, url: str, prefix: str, echo: collections.Counter[str]
) -> None:
    finished = run_python(
        f"""
        import faulthandler, os, signal, sys
        import lightlink

        url, service = sys.argv[1:]
        client = lightlink.connect(url, name=service)
        client.call(service, "echo", {{"text": "before"}})
        statuses = []
        client.on_status_change(statuses.append)
        for n in range(3):
            child = os.fork()
            if not child:
                assert client.call(service, "echo", {{"text": f"child {{n}}"}}) == f"child {{n}}"
                client.flush()
                {ENDS[end]}
            assert client.call(service, "echo", {{"text": f"parent {{n}}"}}) == f"parent {{n}}"
            os.waitpid(child, 0)
            assert client.call(service, "echo", {{"text": f"after {{n}}"}}) == f"after {{n}}"
        assert statuses == []  # its connection was never lost
        """,
        url,
        prefix,
        options=FORKING,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    asked = {"before", *(f"{who} {n}" for who in ("child", "parent", "after") for n in range(3))}
    assert echo == dict.fromkeys(asked, 1)


def test_a_daemon_whose_descriptors_were_all_closed_goes_on(url: str, prefix: str, python: StartPython) -> None:
    """As python-daemon does: two forks, and nothing left open of what was connected before."""
    parent = python(
        """
        import gc, os, sys
        import lightlink

        url, service = sys.argv[1:]
        client = lightlink.connect(url)
        client.flush()
        if os.fork():
            os.wait()
            client.flush()
            print("parent goes on", flush=True)
            sys.exit()
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(3, 4096)
        daemon = lightlink.Service(service, client, workers=1)
        daemon.register("pid", os.getpid)
        daemon.start()
        for _ in range(20):
            assert client.call(service, "pid") == os.getpid()
            gc.collect()  # what is dropped of the parent's closes nothing of ours
        with client.subscribe(f"{service}.end") as end:
            client.publish(f"{service}.serves")
            end.get(timeout=30)
        daemon.stop()
        client.close()
        """,
        url,
        prefix,
        options=FORKING,
    )
    with lightlink.connect(url) as judge, judge.subscribe(f"{prefix}.serves") as serves:
        parent.wait_line("parent goes on")
        serves.get(timeout=30)
        judge.publish(f"{prefix}.end")
        done = parent.wait()  # until nobody writes any more, the daemon included
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_in_the_middle_of_everything_hurts_neither_side(ledger: Ledger, url: str, prefix: str) -> None:
    """Other threads hold whatever locks there are at the instant of the fork."""
    calls: Calls = ledger.open(Calls())
    service = lightlink.Service(prefix, url)
    service.register("work", calls.run)
    with service, lightlink.connect(url) as judge:
        ends: list[list[int]] = []
        judge.subscribe(f"{prefix}.ended", ends.append)
        finished = run_python(
            """
            import contextlib, itertools, os, sys, threading
            import lightlink

            url, service = sys.argv[1:]
            client = lightlink.connect(url, timeout=30)
            numbers = itertools.count(1)
            stopped = threading.Event()
            answered = []

            def call(number):
                assert client.call(service, "work", {"number": number}) == number
                answered.append(number)

            def repeat(action):
                while not stopped.wait(0.001):
                    action()

            actions = [
                lambda: call(next(numbers)),
                lambda: call(next(numbers)),
                lambda: client.publish(f"{service}.noise", bytes(1000)),
                lambda: client.flush(),
                lambda: client.subscribe(f"{service}.noise").stop(),
                lambda: client.submit(service, "work", {"number": -next(numbers)}).result(),
            ]
            threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
            for thread in threads:
                thread.start()
            for n in range(1, 21):
                child = os.fork()
                if not child:
                    call(1_000_000 * n)
                    client.publish(f"{service}.ended", [n])
                    client.flush()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0, n
            stopped.set()
            for thread in threads:
                thread.join()
            print(len(answered))
            """,
            url,
            prefix,
            options=FORKING,
            timeout=100,
        )
        assert finished.returncode == 0, finished.stderr
        assert eventually(lambda: sorted(itertools.chain(*ends)) == list(range(1, 21)))
    assert int(finished.stdout) > 0
    assert not calls.faults()["run twice"]


def test_a_child_forked_in_a_handler_leaves_the_parents_requests(url: str, prefix: str) -> None:
    finished = run_python(
        """
        import os, sys, threading
        import lightlink

        url, name = sys.argv[1:]
        service = lightlink.Service(name, url, workers=1)
        ran = []

        @service.rpc
        def fork(how: str) -> int:
            child = os.fork()
            if child:
                return os.waitpid(child, 0)[1]
            service.client.publish(f"{name}.children", how)
            if how == "raise":
                raise RuntimeError("in the child")
            if how == "exit":
                sys.exit(7)
            return -1

        @service.rpc
        def add(a: int, b: int) -> int:
            service.client.publish(f"{name}.ran", a)
            return a + b

        with service, lightlink.connect(url) as client:
            children, runs = client.subscribe(f"{name}.children"), client.subscribe(f"{name}.ran")
            for how, status in (("return", 0), ("exit", 7), ("raise", 1)):
                answer = client.submit(name, "fork", {"how": how})
                held = [client.submit(name, "add", {"a": n, "b": 1}) for n in range(5)]
                assert answer.result(30) == status << 8, answer.result()
                assert [each.result(30) for each in held] == [1, 2, 3, 4, 5]
                assert children.get(timeout=30).data == how
                assert [runs.get(timeout=30).data for _ in held] == [0, 1, 2, 3, 4]
                client.flush()
                assert (children.pending, runs.pending) == (0, 0)
        print("done")
        """,
        url,
        prefix,
        options=FORKING,
    )
    assert finished.stdout == "done\n", finished.stderr
    assert finished.stderr.count("RuntimeError: in the child") == 1


def test_a_child_forked_in_an_event_handler_leaves_the_events(url: str, prefix: str) -> None:
    finished = run_python(
        """
        import os, sys
        import lightlink

        url, subject = sys.argv[1:]
        client = lightlink.connect(url)
        done = client.subscribe(f"{subject}.done")

        @client.on(subject)
        def fork(number):
            if number == 2 and not os.fork():
                return
            client.publish(f"{subject}.done", number)

        for number in range(5):
            client.publish(subject, number)
        assert [done.get(timeout=30).data for _ in range(5)] == [0, 1, 2, 3, 4]
        assert os.wait()[1] == 0
        client.flush()
        assert done.pending == 0
        client.close()
        """,
        url,
        prefix,
        options=FORKING,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_a_multiprocessing_child_publishes_is_delivered(method: str, url: str, prefix: str, peer: RawPeer) -> None:
    sub = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    code = """
        import multiprocessing, sys
        import lightlink

        url, subject, method = sys.argv[1:]
        client = lightlink.connect(url)

        def work(client):
            for number in range(2000):
                client.publish(subject, bytes(500))

        if __name__ == "__main__":
            client.publish(subject, b"parent")
            context = multiprocessing.get_context(method)
    """
    if method == "fork":
        code += """
            child = context.Process(target=work, args=(client,))
            child.start()
            child.join()
            assert child.exitcode == 0
    """
    else:
        code += """
            from chaos.children import publish
            child = context.Process(target=publish, args=(url, subject, 2000))
            child.start()
            child.join()
            assert child.exitcode == 0
    """
    finished = run_python(code, url, prefix, method, options=FORKING)
    assert finished.returncode == 0, finished.stderr
    received = 0
    while received < 2001:
        peer.run(sub.next_msg(timeout=30))
        received += 1


def test_what_a_forked_child_publishes_is_delivered_in_order(url: str, prefix: str, peer: RawPeer) -> None:
    sub = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    finished = run_python(
        """
        import os, sys
        import lightlink

        client = lightlink.connect(sys.argv[1])
        child = os.fork()
        for number in range(2000):
            client.publish(sys.argv[2], bytes(500))
        if child:
            assert os.waitpid(child, 0)[1] == 0
        """,
        url,
        prefix,
        options=FORKING,
    )
    assert finished.returncode == 0, finished.stderr
    for _ in range(4000):
        peer.run(sub.next_msg(timeout=30))


def test_what_receives_stays_with_the_parent(url: str, prefix: str) -> None:
    finished = run_python(
        """
        import os, sys, threading
        import lightlink

        url, name = sys.argv[1:]
        client = lightlink.connect(url)
        service = lightlink.Service(name, client)
        service.register("pid", os.getpid)
        service.start()
        events, watch = client.subscribe(name), client.watch_state(f"{name}.*")
        if not (child := os.fork()):
            for receive in (events.get, watch.get):
                try:
                    receive(timeout=5)
                except lightlink.ClosedError as exc:
                    assert "belongs to the parent process" in str(exc)
            service.stop()
            events.stop()
            watch.stop()
            client.close()
            assert [t.name for t in threading.enumerate()] == ["MainThread"]  # it did not even connect
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client.publish(name, "heard")
        client.set_state(f"{name}.key", "seen")
        assert events.get(timeout=30).data == "heard"
        assert watch.get(timeout=30).value == "seen"
        assert client.call(name, "pid") == os.getpid()
        client.close()
        """,
        url,
        prefix,
        options=FORKING,
    )
    assert finished.returncode == 0, finished.stderr


def test_a_child_of_a_service_obeys_the_signal_to_end(url: str, prefix: str, python: StartPython) -> None:
    process = python(
        """
        import os, signal, sys, time
        import lightlink

        url, name = sys.argv[1:]
        service = lightlink.Service(name, url)

        @service.rpc
        def fork() -> int:
            told, tell = os.pipe()
            child = os.fork()
            if not child:
                os.write(tell, b"!")  # Python forgets signals that come in the middle of a fork
                while True:
                    time.sleep(0.05)  # not signal.pause(): a signal just before it would be forgotten
            os.read(told, 1)
            os.kill(child, signal.SIGTERM)
            return os.waitpid(child, 0)[1]

        service.start()
        print("ready", flush=True)
        service.run()
        """,
        url,
        prefix,
        options=FORKING,
    )
    process.wait_line("ready")
    with lightlink.connect(url) as client:
        assert client.call(prefix, "fork", timeout=30) == 15
