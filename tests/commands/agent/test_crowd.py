"""Many agents in one process, each on a connection of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers.commands import World

if TYPE_CHECKING:
    from conftest import StartServer

    from lightlink.commands import Agent

WORKERS = 4
# The loop, the two threads for timers and callbacks, the first worker.
THREADS_EACH = 4


def _start(world: World, number: int) -> Agent:
    client = world.client(name=f"client-{number}", timeout=30)
    agent = world.agent(f"crowd-{number}", target=client, workers=WORKERS)
    agent.register("work", lambda: number)
    return agent.start(timeout=60)


def _burst(world: World, count: int, each: int) -> None:
    """Start agents, and have the first burst of commands done by all of them."""
    before = threading.active_count()
    with ThreadPoolExecutor(16) as starters:
        agents = list(starters.map(_start, [world] * count, range(count)))
    assert threading.active_count() - before < THREADS_EACH * count + 60

    manager = world.manager(timeout=30, sweep_interval=None)
    batch = manager.send_many([agent.client_id for agent in agents], "work", repeat=each, timeout=300)
    assert batch.wait(100)
    assert batch.counts()["completed"] == count * each
    assert threading.active_count() - before < (THREADS_EACH - 1 + WORKERS) * count + 60


def test_agents_in_one_process_finish_their_first_burst(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        _burst(world, 40, 10)


@pytest.mark.slow
def test_three_hundred_agents_finish_their_first_burst(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        _burst(world, 300, 10)
