"""Servers of a cluster leave, in peace or not, and those who talked to them talk to the others."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink
from chaos.command_load import CommandLoad
from chaos.ledger import Calls
from chaos.load import balanced, calling
from chaos.nodes import leader_of
from lightlink.server import EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from chaos.ledger import Ledger
    from chaos.load import MixedLoad
    from lightlink.server import EmbeddedServer


def test_a_client_told_of_one_server_finds_the_others(cluster: EmbeddedCluster) -> None:
    with lightlink.connect(cluster.urls[0], reconnect_wait=0.01) as client:
        cluster.nodes[0].kill()
        client.publish("any", 1)
        client.flush(timeout=30)


@pytest.fixture
def lame_cluster() -> Iterator[EmbeddedCluster]:
    """Servers that begin to cut their clients off one second after they were told to end."""
    with EmbeddedCluster(config='lame_duck_grace_period: "1s", lame_duck_duration: "30s"') as running:
        yield running


def heard_through(client: lightlink.Client, service: str) -> bool:
    """Tell whether the server of a client knows by now what a service, and all before it, has subscribed to elsewhere.

    Interest travels from server to server, which takes it a moment.
    """
    try:
        client.call(service, "here", timeout=30)
    except lightlink.MethodNotFound:
        return True
    except lightlink.ServiceUnavailable:
        return False
    raise AssertionError("it has a method of this name")


def work(calls: Calls, number: int) -> int:
    """Take a while, so that at every instant some calls are under way."""
    time.sleep(0.05)
    return calls.run(number)


def test_no_call_fails_when_a_server_is_taken_out_of_service(ledger: Ledger, lame_cluster: EmbeddedCluster) -> None:
    leaving, staying, _ = lame_cluster.nodes
    calls: Calls = ledger.open(Calls())
    with contextlib.ExitStack() as stack:
        for node in (leaving, staying):
            service = lightlink.Service("slow", node.url)
            service.register("work", functools.partial(work, calls))
            stack.enter_context(service)
        clients = [stack.enter_context(lightlink.connect(node.url)) for node in (leaving, staying)]
        for client in clients * 3:
            stack.enter_context(calling(client, calls, "slow", timeout=30))
        calls.wait_for(lambda: calls.progress > 50)
        os.kill(leaving.pid, signal.SIGUSR2)
        assert eventually(lambda: not leaving.running, timeout=30)
        progress = calls.progress
        calls.wait_for(lambda: calls.progress > progress + 50)
    assert calls.count("answered") == len(calls.outcomes)
    ledger.balance()


@pytest.fixture
def patient_cluster() -> Iterator[EmbeddedCluster]:
    """Servers that cut nobody off while a test runs."""
    with EmbeddedCluster(config='lame_duck_grace_period: "200s", lame_duck_duration: "300s"') as running:
        yield running


def test_a_client_leaves_a_server_in_lame_duck_mode_at_once(
    patient_cluster: EmbeddedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightlink")
    leaving = patient_cluster.nodes[0]
    statuses: list[lightlink.Status] = []
    with lightlink.connect(leaving.url) as client:
        client.on_status_change(statuses.append)
        received = client.subscribe("news")
        os.kill(leaving.pid, signal.SIGUSR2)
        assert eventually(lambda: statuses == [lightlink.Status.RECONNECTING, lightlink.Status.CONNECTED])
        client.publish("news", "heard")
        assert received.get(timeout=30).data == "heard"
        assert leaving.running  # it waits before it cuts anybody off
    assert f"the server is about to shut down; moving away from {leaving.url}" in caplog.text


def test_a_client_waits_for_a_long_call_before_it_leaves(cluster: EmbeddedCluster) -> None:
    leaving, staying, _ = cluster.nodes
    begun, go_on = threading.Event(), threading.Event()
    service = lightlink.Service("slow", staying.url)

    @service.rpc
    def wait() -> str:
        begun.set()
        return "waited" if go_on.wait(60) else "forgotten"

    with service, lightlink.connect(leaving.url, timeout=30) as client:
        assert eventually(lambda: heard_through(client, "slow"))
        answer = client.submit("slow", "wait")
        assert begun.wait(30)
        os.kill(leaving.pid, signal.SIGUSR2)
        go_on.set()
        assert answer.result(30) == "waited"
        assert eventually(lambda: client._connection.session.nc.server != leaving.url)


def test_a_client_that_knows_no_other_server_stays_until_cut_off(fresh_server: StartServer) -> None:
    server = fresh_server(config='lame_duck_grace_period: "1s", lame_duck_duration: "30s"')
    with lightlink.connect(server.url) as client:
        os.kill(server.pid, signal.SIGUSR2)
        # It may take all of its time, with a single client too.
        assert eventually(lambda: not server.running, timeout=90)
        eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        server.start()
        assert client.wait_connected(30)


def test_what_is_published_while_a_client_leaves_is_delivered(
    cluster: EmbeddedCluster,
) -> None:
    leaving, staying, _ = cluster.nodes
    begun, go_on = threading.Event(), threading.Event()
    service = lightlink.Service("slow", staying.url)

    @service.rpc
    def wait() -> bool:
        begun.set()
        return go_on.wait(60)

    with service, lightlink.connect(staying.url) as other:
        received = other.subscribe("last.words")
        client = lightlink.connect(leaving.url, timeout=60)
        assert eventually(lambda: heard_through(client, "slow"))
        client.submit("slow", "wait")
        assert begun.wait(30)
        os.kill(leaving.pid, signal.SIGUSR2)
        assert eventually(lambda: client._connection.session._pump._held)
        client.publish("last.words", "heard")
        client.close()
        go_on.set()
        assert received.get(timeout=30).data == "heard"


def lose_and_get_back(cluster: EmbeddedCluster, node: EmbeddedServer, *loads: MixedLoad | CommandLoad) -> None:
    """Kill a server under load, wait until all goes on without it, and bring it back."""
    node.kill()
    for load in loads:
        load.wait_progress()
    node.start()
    cluster.wait_ready(60)
    for load in loads:
        load.wait_progress()


def test_nothing_acknowledged_is_lost_with_the_leader(ledger: Ledger, cluster: EmbeddedCluster, prefix: str) -> None:
    with balanced(ledger, prefix, cluster.urls, cluster.urls, replicas=3) as load:
        lose_and_get_back(cluster, leader_of(cluster, f"KV_{prefix}"), load)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_as_servers_die_in_turn(
    ledger: Ledger, cluster: EmbeddedCluster, prefix: str
) -> None:
    with (
        balanced(ledger, prefix, cluster.urls, cluster.urls, replicas=3) as load,
        CommandLoad(ledger, prefix, cluster.urls, replicas=3) as commands,
    ):
        for node in cluster.nodes:
            lose_and_get_back(cluster, node, load, commands)
        commands.finish()


def test_no_acknowledged_command_is_lost_with_a_server(ledger: Ledger, cluster: EmbeddedCluster, prefix: str) -> None:
    with CommandLoad(ledger, prefix, cluster.urls, replicas=3) as commands:
        commands.wait_progress()
        lose_and_get_back(cluster, leader_of(cluster, "LIGHTLINK_COMMANDS"), commands)
        commands.finish()
    ledger.balance()
