"""Consumers and servers die among durable events; none is lost, lanes never overlap, dead letters are complete."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from chaos.streams_ledger import Books, Consumers, Publisher, Servers
from lightlink.errors import StreamError
from lightlink.jetstream import api

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from conftest import StartServer

    from lightlink.server import EmbeddedCluster

_PATIENCE = 120.0
_DONE_BETWEEN = 100  # events that are done before another consumer is struck


def play(
    urls: Sequence[str],
    folder: Path,
    events: int,
    processes: int,
    workers: int,
    dice: random.Random,
    *,
    servers: Servers | None = None,
    replicas: int = 1,
    partitions: int = 0,
    strikes: int = 0,
) -> str:
    """Have events handled among crashes, and check the books; ``strikes`` is how often a server is killed.

    Strikes go by what is done, not by time: else a slow machine would be struck again before anything went on.
    """
    ledger = folder / "ledger"
    ledger.touch()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(lightlink.connect(list(urls), name="judge", timeout=30, reconnect_wait=0.05))
        client.stream("LEDGER", ["ledger.*"], replicas=replicas, partitions=partitions or None)
        publisher = Publisher(client, events)
        books = Books(ledger)
        consumers = Consumers(urls, ledger, processes, workers, partitions, dice)
        stack.callback(consumers.close)
        give_up = time.monotonic() + _PATIENCE + events / 50
        while True:
            stored = publisher.stored()
            books.read()
            dead, done = dead_of(client), len(books.done)
            is_over = stored is not None and stored.keys() <= books.done | dead
            if is_over and (servers is None or servers.crashes >= strikes):
                break
            assert time.monotonic() < give_up, f"{done} done, {len(dead)} parked of {events}"
            if servers is not None and servers.crashes < min(strikes, 1 + done * strikes // events):
                servers.strike()
            elif consumers.strikes < 2 + done // _DONE_BETWEEN and dice.random() < 0.5:
                consumers.strike()
            consumers.replace()
            time.sleep(dice.random() * 0.5)
        assert stored is not None
        assert sorted(stored.values()) == list(range(events))
        crashes = consumers.crashes + (servers.crashes if servers else 0)
        told = books.check(stored, dead, crashes, workers=workers, partitions=partitions)
        told = f"{told}, crashes {consumers.crashes}, of servers {servers.crashes if servers else 0}"
        assert not books.faults, f"{told}: {books.faults[:10]}"
        return told


def dead_of(client: lightlink.Client) -> set[int]:
    """Return which events are parked; while servers elect, those that are told of."""
    try:
        return {letter.sequence for letter in client.dead_letters("LEDGER", "ledger").list(10_000)}
    except StreamError:
        return set()


@pytest.fixture
def dice() -> random.Random:
    """Chance, whose seed is told where a test fails."""
    seed = random.randrange(10_000)
    logging.getLogger(__name__).warning("seed %d", seed)
    return random.Random(seed)


@pytest.mark.parametrize(("workers", "partitions"), [(1, 0), (8, 0), (4, 4)])
def test_no_event_is_lost_among_consumers_that_die(
    fresh_server: StartServer, tmp_path: Path, dice: random.Random, workers: int, partitions: int
) -> None:
    play([fresh_server().url], tmp_path, 500, 2, workers, dice, partitions=partitions)


def test_no_event_is_lost_when_the_server_is_killed(
    fresh_server: StartServer, tmp_path: Path, dice: random.Random
) -> None:
    server = fresh_server()
    play([server.url], tmp_path, 500, 2, 8, dice, servers=Servers([server], None, dice), strikes=2)


def test_no_event_is_lost_when_servers_of_a_cluster_are_killed(
    cluster: EmbeddedCluster, tmp_path: Path, dice: random.Random
) -> None:
    servers = Servers(cluster.nodes, cluster, dice)
    play(cluster.urls, tmp_path, 500, 2, 8, dice, servers=servers, replicas=3, strikes=2)


def test_dead_letters_are_on_as_many_servers_as_their_events(
    cluster: EmbeddedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    with lightlink.connect(cluster.urls, timeout=30) as client:

        def consume(stream: str, replicas: int) -> Any:
            client.stream(stream, [f"{stream}.>"], replicas=replicas)
            client.consume(f"{stream}.>", name="c", stream=stream)(print)
            return client.stream("LIGHTLINK_DEAD")

        dead = consume("THREE", 3)
        assert (api.stream_config(client._connection, "LIGHTLINK_DEAD", 30) or {})["num_replicas"] == 3
        dead.delete()
        consume("ONE", 1)
        assert "LIGHTLINK_DEAD has" not in caplog.text
        consume("OTHER", 3)
        assert "LIGHTLINK_DEAD has 1 replica(s), OTHER has 3" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("partitions", [0, 8])
def test_a_hundred_thousand_events_among_consumers_that_die(
    fresh_server: StartServer, tmp_path: Path, dice: random.Random, partitions: int
) -> None:
    told = play([fresh_server().url], tmp_path, 100_000, 3, 8, dice, partitions=partitions)
    logging.getLogger(__name__).warning("%s", told)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_events_among_servers_that_die(
    cluster: EmbeddedCluster, tmp_path: Path, dice: random.Random
) -> None:
    servers = Servers(cluster.nodes, cluster, dice)
    told = play(cluster.urls, tmp_path, 100_000, 3, 8, dice, servers=servers, replicas=3, strikes=20)
    logging.getLogger(__name__).warning("%s", told)
