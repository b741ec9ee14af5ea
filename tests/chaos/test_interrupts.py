"""Ctrl-C ends whatever a program waits for, and what it talks through goes on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import itertools
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.edge import gateway_for
from helpers.instants import interrupt_at
from helpers.process import run_python
from helpers.waiting import eventually

import lightlink
from lightlink.http import create_app
from lightlink.http.server import HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartPython, StartServer


# What blocks while all is well, and what does while the network hangs (``link``, the proxy on the way).
WAITS = {
    "all is well": """
        "call": lambda: client.call(name, "wait", timeout=60),
        "pause": lambda: client.call("nobody", "no", retry=lightlink.Retry(attempts=9, backoff=60, backoff_max=60)),
        "result": lambda: client.submit(name, "wait", timeout=60).result(),
        "get": lambda: client.subscribe("silence").get(),
        "iterate": lambda: list(client.subscribe("silence")),
        "watch": lambda: client.watch_state("silence").get(),
        "iterate watch": lambda: list(client.watch_state("silence")),
        "stop": lambda: busy.stop(timeout=60),
        "connect": lambda: lightlink.connect(nowhere, connect_timeout=60),
        "start": lambda: lightlink.Service("other", nowhere, connect_timeout=60).start(),
    """,
    "the network hangs": """
        "call": lambda: client.call(name, "echo", {"text": ""}, timeout=60),
        "flush": lambda: client.flush(timeout=60),
        "publish": lambda: [client.publish("any", bytes(100_000)) for _ in range(1000)],
        "subscribe": lambda: client.subscribe("any"),
        "set_state": lambda: client.set_state("key", 1, timeout=60),
        "get_state": lambda: client.get_state("key", timeout=60),
        "keys": lambda: client.state().keys(timeout=60),
        "upload": lambda: client.upload(io.BytesIO(bytes(5_000_000)), stall_timeout=60),
        "download": lambda: client.download(file.id, io.BytesIO(), stall_timeout=60),
        "files": lambda: client.files(),
        "wait_connected": lambda: (link.refuse(), link.cut(), time.sleep(0.2), client.wait_connected(60)),
    """,
}


@pytest.fixture
def slow_service(url: str, prefix: str) -> Iterator[str]:
    """A service with a method that answers at once and one that does so in the end only."""
    ended = threading.Event()
    service = lightlink.Service(prefix, url)

    @service.rpc
    def echo(text: str) -> str:
        return text

    @service.rpc
    def wait() -> None:
        ended.wait(60)

    with service:
        yield prefix
        ended.set()


# What takes locks that the loop takes too.
BRIEF: dict[str, Callable[[lightlink.Client, str, lightlink.Subscription], object]] = {
    "call": lambda client, name, _: client.call(name, "echo", {"text": ""}),
    "flush": lambda client, _name, _: client.flush(),
    "get": lambda client, name, events: (client.publish(name, 1), events.get(timeout=30)),
    "keys": lambda client, name, _: client.state(name, storage="memory").keys(),
    "subscribe": lambda client, _name, _: client.subscribe("silence").stop(),
}


@pytest.mark.parametrize("operation", BRIEF)
def test_ctrl_c_at_any_instant_leaves_the_client_working(operation: str, url: str, slow_service: str) -> None:
    """Never is a lock left taken, or the loop asleep that was to be woken."""
    with lightlink.connect(url) as client, client.subscribe(slow_service) as events:
        client.state(slow_service, storage="memory").set("key", 1)
        for instant in itertools.count(1):
            try:
                with interrupt_at(instant):
                    BRIEF[operation](client, slow_service, events)
            except (
                KeyboardInterrupt,
                RuntimeError,
            ):  # the second is what Python's own conditions may make of the first
                client.flush(timeout=30)
            else:
                break
    assert instant > 10


def of_the_library() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lightlink") and thread.is_alive()}


@pytest.mark.filterwarnings("always::ResourceWarning")
def test_ctrl_c_at_any_instant_of_connect_leaves_nothing(url: str, recwarn: pytest.WarningsRecorder) -> None:
    """No thread, no socket, and no lock taken that one of the threads needs to end."""
    before = of_the_library()
    lightlink.connect(url).close()  # what is done only the first time is done
    for instant in itertools.count(1):
        client = None
        try:
            with interrupt_at(instant):
                client = lightlink.connect(url)
        except KeyboardInterrupt:
            if client is None:
                eventually(lambda: of_the_library() <= before, timeout=30)
        if client is not None:
            client.close()
            break
    gc.collect()
    assert instant > 100
    assert [str(warning.message) for warning in recwarn if warning.category is ResourceWarning] == []


def test_ctrl_c_at_any_instant_of_close_lets_it_be_closed(url: str) -> None:
    """By another thread too: no lock is left taken, and no thread goes on."""
    lightlink.connect(url).close()  # what is done only the first time is done
    before = of_the_library()
    for instant in itertools.count(1, 2):
        client = lightlink.connect(url)
        client.on("any")(lambda _: None)
        client.subscribe("other")
        try:
            with interrupt_at(instant):
                client.close()
        except KeyboardInterrupt:
            with concurrent.futures.ThreadPoolExecutor(1) as other:
                other.submit(client.close).result(30)
            eventually(lambda: of_the_library() <= before, timeout=30)
        else:
            break
    assert instant > 100


def of_a_service(stack: contextlib.ExitStack, url: str, prefix: str, _identities: Path) -> Callable[[], None]:
    service = lightlink.Service(prefix, url)
    service.register("one", lambda: 1)
    stack.callback(service.start().stop)
    return service.stop


def of_a_manager(stack: contextlib.ExitStack, url: str, _prefix: str, _identities: Path) -> Callable[[], None]:
    client = stack.enter_context(lightlink.connect(url))
    return stack.enter_context(lightlink.CommandManager(client)).close


def of_an_agent(stack: contextlib.ExitStack, url: str, prefix: str, _identities: Path) -> Callable[[], None]:
    agent = lightlink.Agent(prefix, url)
    agent.register("one", lambda: 1)
    stack.callback(agent.start().stop)
    return agent.stop


def of_a_consumption(stack: contextlib.ExitStack, url: str, prefix: str, _identities: Path) -> Callable[[], None]:
    client = stack.enter_context(lightlink.connect(url))
    client.stream(prefix, [prefix])
    client.consume(prefix, name="one")(lambda _: None)
    (consumption,) = client.subscriptions
    return consumption.stop


def of_a_gateway(stack: contextlib.ExitStack, _url: str, _prefix: str, identities: Path) -> Callable[[], None]:
    gateway = gateway_for(identities, "tls://127.0.0.1:4222").start()
    stack.callback(gateway.stop)
    return gateway.stop


KINDS = [
    (of_a_service, 11),
    (of_a_manager, 11),
    (of_an_agent, 37),
    (of_a_consumption, 13),
    (of_a_gateway, 7),
]


@pytest.mark.parametrize(("kind", "step"), KINDS)
def test_ctrl_c_at_any_instant_of_stop_lets_it_be_stopped(
    kind: Any, step: int, url: str, prefix: str, identities: Path
) -> None:
    with contextlib.ExitStack() as stack:
        kind(stack, url, prefix, identities)()
    before = of_the_library()
    for instant in itertools.count(1, step):
        with contextlib.ExitStack() as stack:
            stop = kind(stack, url, prefix, identities)
            try:
                with interrupt_at(instant):
                    stop()
            except KeyboardInterrupt:
                with concurrent.futures.ThreadPoolExecutor(1) as other:
                    other.submit(stop).result(30)
            else:
                break
        eventually(lambda: of_the_library() <= before, timeout=30)
    assert instant > 5 * step


RECEIVERS: dict[str, Callable[[lightlink.Client, str], Any]] = {
    "subscription": lambda client, prefix: client.subscribe(prefix),
    "handler": lambda client, prefix: client.subscribe(prefix, lambda _: None),
    "watch": lambda client, prefix: client.state(prefix).watch(">"),
    "consumer": lambda client, prefix: (made := client.consumer(prefix, "one"), made.fetch(timeout=0.0))[0],
}


@pytest.mark.parametrize("kind", RECEIVERS)
def test_ctrl_c_at_any_instant_of_stop_leaves_no_subscription(kind: str, url: str, prefix: str) -> None:
    with lightlink.connect(url) as client:
        client.stream(prefix, [f"{prefix}.stored"])
        client.consume(f"{prefix}.stored", name="one")(lambda _: None)
        client.subscriptions[0].stop()
        RECEIVERS[kind](client, prefix).stop()
        routes = client._connection.session.nc._subs
        eventually(lambda: len(routes) == 1)  # the replies'
        for instant in itertools.count(1, 3):
            receiver = RECEIVERS[kind](client, prefix)
            assert len(routes) > 1
            try:
                with interrupt_at(instant):
                    receiver.stop()
            except KeyboardInterrupt:
                receiver.stop()
            else:
                break
            eventually(lambda: len(routes) == 1, timeout=30)
    assert instant > 10


@pytest.mark.parametrize("instant", [2, 8])
def test_ctrl_c_as_an_http_server_stops_lets_it_be_stopped(instant: int, url: str) -> None:
    """Before its threads, which are waitress's: an interrupt within may leave their lock taken."""
    with lightlink.connect(url) as client, lightlink.CommandManager(client) as manager:
        told: list[str] = []
        server = HttpServer(create_app(manager), "127.0.0.1:0", told.append).start()
        with pytest.raises(KeyboardInterrupt), interrupt_at(instant):
            server.stop()
        assert server.stage.value == "running"
        server.stop()
        with pytest.raises(OSError, match="refused"), urllib.request.urlopen(f"{told[0]}/api/health", timeout=30):
            pass


def test_ctrl_c_at_any_instant_of_release_lets_it_be_released(url: str, prefix: str) -> None:
    with lightlink.connect(url) as client:
        for instant in itertools.count(1, 3):
            lock = client.lock(prefix, ttl=600)
            assert lock.acquire(wait=0)
            try:
                with interrupt_at(instant):
                    lock.release()
            except KeyboardInterrupt:
                lock.release()
            else:
                break
    assert instant > 30


def test_ctrl_c_while_a_client_closes_leaves_nothing(url: str) -> None:
    finished = run_python(
        """
        import sys, threading
        import lightlink
        from chaos.interrupt import interrupted
        from helpers.edge import proxy_before
        from helpers.waiting import eventually

        with proxy_before(sys.argv[1]) as link:
            before = threading.enumerate()  # over QUIC, the gateway's too
            client = lightlink.connect(link.url)
            assert threading.enumerate() != before
            link.pause()
            assert interrupted(lambda: client.close(timeout=60))
            eventually(lambda: threading.enumerate() == before, timeout=30)
            link.resume()
            eventually(lambda: link.connections == 0, timeout=30)
        """,
        url,
        timeout=50,
    )
    assert finished.returncode == 0, f"{finished.stdout}{finished.stderr}"


@pytest.mark.parametrize("situation", WAITS)
def test_ctrl_c_ends_what_blocks_and_leaves_the_client_working(situation: str, url: str, slow_service: str) -> None:
    finished = run_python(
        f"""
        import io, sys, threading, time
        import lightlink
        from chaos.interrupt import interrupted
        from helpers.edge import proxy_before, silent_address

        url, name = sys.argv[1:]
        silent, nowhere = silent_address(url)
        with proxy_before(url) as link:
            client = lightlink.connect(link.url, outbox_bytes=1_000_000, outbox_timeout=60, timeout=30)
            ended = threading.Event()
            busy = client.subscribe(f"{{name}}.busy", lambda data: ended.wait(60))
            client.publish(f"{{name}}.busy", 1)
            file = client.upload(io.BytesIO(bytes(5_000_000)))
            waits = {{
                {WAITS[situation].strip()}
            }}
            for what, wait in waits.items():
                if {situation == "the network hangs"}:
                    link.pause()
                print(what, flush=True)
                assert interrupted(wait)
                link.accept()
                link.resume()
                assert client.call(name, "echo", {{"text": "well"}}, timeout=30) == "well"
            ended.set()
            client.close()
        """,
        url,
        slow_service,
        timeout=100,
    )
    assert finished.returncode == 0, f"{finished.stdout}{finished.stderr}"


def test_ctrl_c_in_ipython_ends_the_cell_and_the_next_one_works(
    python: StartPython, url: str, slow_service: str
) -> None:
    process = python(
        """
        from IPython import start_ipython
        start_ipython(argv=["--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor"])
        """,
        options=(),
    )
    process.send_line("import lightlink; from chaos.interrupt import press_when_waiting")
    process.send_line(f"client = lightlink.connect('{url}'); service = '{slow_service}'")
    process.send_line("pressing = press_when_waiting(); client.call(service, 'wait', timeout=60)")
    assert eventually(lambda: "KeyboardInterrupt" in process.stdout, timeout=60), process.stderr
    process.send_line("pressing = press_when_waiting(); client.subscribe('silence').get()")
    assert eventually(lambda: process.stdout.count("KeyboardInterrupt") >= 4, timeout=30)
    process.send_line("print('it says', client.call(service, 'echo', {'text': 'well'}))")
    process.send_line("exit")
    assert process.wait(60).returncode == 0
    assert "it says well" in process.stdout


# What waits in the main thread for what another process or thread does, for as long as that takes.
LONG_WAITS = """
        "call": lambda: client.call(name, "wait", timeout=60),
        "pause": lambda: client.call("nobody", "no", retry=lightlink.Retry(attempts=9, backoff=60, backoff_max=60)),
        "result": lambda: client.submit(name, "wait", timeout=60).result(),
        "exception": lambda: client.submit(name, "wait", timeout=60).exception(),
        "map": lambda: list(client.map(name, "wait", [{}], timeout=60)),
        "map as completed": lambda: list(client.map(name, "wait", [{}], timeout=60, as_completed=True)),
        "get": lambda: client.subscribe("silence").get(),
        "watch": lambda: client.watch_state("silence").get(),
        "lock": lambda: client.lock(f"{name}-lock", ttl=600, wait=60).acquire(),
        "replay": lambda: list(client.replay(f"{name}.stored", stream=name, follow=True)),
        "storing": lambda: client.submit_stored(f"{name}.nowhere", timeout=60).result(),
        "promise": lambda: promise.wait(),
        "promised result": lambda: promise.result(),
        "progress": lambda: promise.result(progress=print),
        "batch": lambda: batch.wait(),
        "results": lambda: batch.results(60),
        "iterate batch": lambda: list(batch),
        "message": lambda: manager.message(name, "slow", wait_ack=True, timeout=60),
        "stop": lambda: busy.stop(timeout=60),
        "stop agent": lambda: agent.stop(timeout=60),
        "start": lambda: lightlink.Service("other", nowhere, connect_timeout=60).start(),
        "connect": lambda: lightlink.connect(nowhere, connect_timeout=60),
"""


@pytest.mark.parametrize("number", ["SIGINT", pytest.param("SIGALRM", marks=pytest.mark.slow)])
def test_a_signal_another_thread_gets_ends_what_waits(number: str, fresh_server: StartServer) -> None:
    """The kernel may give it to any thread. Python runs its handler when the main one looks up from its wait in C."""
    finished = run_python(
        f"""
        import signal, sys, threading
        import lightlink
        from chaos.interrupt import interrupted
        from helpers.edge import silent_address

        url, name = sys.argv[1], "waiting"
        silent, nowhere = silent_address(url)
        with silent:
            client = lightlink.connect(url, timeout=30)
            ended = threading.Event()
            service = lightlink.Service(name, url)
            service.register("wait", lambda: ended.wait(60) and None)
            service.start()
            busy = client.subscribe(f"{{name}}.busy", lambda data: ended.wait(60))
            client.publish(f"{{name}}.busy", 1)
            client.stream(name, [f"{{name}}.stored"])
            held = client.lock(f"{{name}}-lock", ttl=600)
            held.acquire()
            tap = client.subscribe(f"{{name}}.nowhere")  # so that nobody says that no stream is there

            manager = lightlink.CommandManager(client)
            agent = lightlink.Agent(name, url, workers=2)
            agent.register("wait", lambda: ended.wait(60) and None)
            agent.on_message("slow")(lambda message: ended.wait(60))
            agent.start()
            promise = manager.send(name, "wait", timeout=60)
            batch = manager.send_many([name], "wait", timeout=60)
            waits = {{
                {LONG_WAITS.strip()}
            }}
            for what, wait in waits.items():
                print(what, flush=True)
                assert interrupted(wait, signal.{number}, elsewhere=True)
            ended.set()
            agent.stop()
            service.stop()
            client.close()
        """,
        fresh_server().url,
        timeout=100,
    )
    assert finished.returncode == 0, f"{finished.stdout}{finished.stderr}"
