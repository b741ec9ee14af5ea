"""Users' callbacks have a thread of their own: whatever they do there, timers, cancels and deadlines go on."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandContext, CommandManager
from lightlink.errors import CallTimeout, ClosedError, CommandTimeout, OutboxFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from conftest import StartServer
    from helpers.raw import RawPeer


@pytest.fixture(params=["a call", "a stored event"])
def stuck(url: str, prefix: str, request: pytest.FixtureRequest) -> Iterator[lightlink.Client]:
    """A client one of whose callbacks does not end before the test does."""
    may_end, runs = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        runs.set()
        may_end.wait(60)

    with lightlink.connect(url) as client, lightlink.Service(prefix, url) as _:
        future: Future[Any] = (
            client.submit_stored(f"{prefix}.none")
            if request.param == "a stored event"
            else (client.submit(prefix, "nothing"))
        )
        future.add_done_callback(hang)
        assert runs.wait(30)
        yield client
        may_end.set()


def test_a_callback_that_waits_holds_up_no_deadline_of_a_command(stuck: lightlink.Client, prefix: str) -> None:
    told = threading.Event()
    agent = Agent(prefix, stuck)

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        if context.cancelled.wait(60):
            told.set()

    with CommandManager(stuck) as manager, agent:
        overdue = manager.send(prefix, "wait", timeout=1.5)
        assert told.wait(30)
        with pytest.raises(CommandTimeout):
            overdue.result(30)
        told.clear()
        cancelled = manager.send(prefix, "wait", timeout=600)
        eventually(lambda: manager.get(cancelled.command_id).status == "executing")
        manager.cancel(cancelled.command_id)
        assert told.wait(30)


def test_a_callback_that_waits_holds_up_no_call(stuck: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.subscribe(f"$SRV.{prefix}-silent.m"))
    peer.run(peer.nc.flush())
    with pytest.raises(CallTimeout):
        stuck.call(f"{prefix}-silent", "m", timeout=0.5)


def test_waiting_for_a_future_in_a_callback_raises_at_once(url: str, prefix: str, peer: RawPeer) -> None:
    peer.run(peer.nc.subscribe(f"$SRV.{prefix}.m"))
    peer.run(peer.nc.flush())
    seen: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    with lightlink.connect(url) as client:

        def wait(_: object) -> None:
            for use in ("result", "exception"):
                for future in (client.submit(prefix, "m", timeout=30), client.submit_stored(f"$SRV.{prefix}.m")):
                    try:
                        getattr(future, use)()
                    except BaseException as exc:
                        seen.put(exc)

        client.submit(f"{prefix}-none", "m").add_done_callback(wait)
        client.submit_stored(f"{prefix}.none").add_done_callback(wait)
        for _ in range(8):
            assert isinstance(seen.get(timeout=10), ClosedError)


def test_a_callback_may_call_and_look_at_a_future_that_is_done(url: str, prefix: str) -> None:
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()
    service = lightlink.Service(prefix, url)
    service.rpc("add")(lambda a, b: a + b)
    with service, lightlink.connect(url) as client:

        def again(done: Future[int]) -> None:
            seen.put(client.call(prefix, "add", {"a": done.result(), "b": 1}, timeout=30))

        client.submit(prefix, "add", {"a": 1, "b": 1}).add_done_callback(again)
        assert seen.get(timeout=30) == 3


def test_a_hook_and_a_listener_that_wait_hold_up_nothing(fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server()
    may_end = threading.Event()
    with lightlink.connect(server.url, on_error=lambda _: may_end.wait(60)) as client:
        client.on_status_change(lambda _: may_end.wait(60))
        with lightlink.connect(server.url) as other:
            other.publish(prefix, b"{", headers={})
        server.restart()
        assert client.wait_connected(30)
        agent = Agent(prefix, client)
        told = threading.Event()

        @agent.command("wait")
        def wait(context: CommandContext) -> None:
            if context.cancelled.wait(60):
                told.set()

        with CommandManager(client) as manager, agent:
            manager.send(prefix, "wait", timeout=1.5)
            assert told.wait(30)
        may_end.set()


def test_a_log_handler_that_publishes_never_waits_on_the_loop(fresh_server: StartServer, prefix: str) -> None:
    """The outbox is full, the server is away, and each record of the loop's would wait for room there."""
    server = fresh_server()
    refused: list[Exception] = []
    client = lightlink.connect(server.url, outbox_messages=1, outbox_timeout=60.0)

    class Publishing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                client.publish(prefix, record.getMessage())
            except OutboxFull as exc:
                refused.append(exc)

    handler = Publishing()
    logger = logging.getLogger("lightlink")
    server.kill()
    eventually(lambda: client.status is lightlink.Status.RECONNECTING)
    client.publish(prefix, "fills it")
    logger.addHandler(handler)
    try:
        client._connection.session.loop.call_soon(logger.warning, "said on the loop")
        eventually(lambda: refused)
        server.start()
        assert client.wait_connected(30)
    finally:
        logger.removeHandler(handler)
        client.close()
