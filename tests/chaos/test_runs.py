"""Orchestrators die and stand still under runs: nothing runs twice, out of order, after its cancel or without locks."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import TYPE_CHECKING

import attrs
import pytest

import lightlink
from chaos.runs_ledger import Books, Chaos, Clock, rough_life, summary
from lightlink.commands import StoreOptions
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

    from lightlink.server import EmbeddedCluster

NAMES = [f"r{number}" for number in range(8)]
STORE = StoreOptions(ack_wait=2.0, heartbeat=0.5)


def play(
    url: str | list[str],
    folder: Path,
    orchestrators: int,
    runs: int,
    seconds: float,
    seed: int,
    cluster: EmbeddedCluster | None = None,
) -> str:
    """Have runs live a rough life, and check the books."""
    dice = random.Random(seed)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(lightlink.connect(url, name="starter"))
        store = attrs.evolve(STORE, replicas=1 if cluster is None else 3)
        orchestrator = stack.enter_context(Orchestrator(client, store=store, work=False))
        servers = url if isinstance(url, str) else ",".join(url)
        hour = folder / "hour"
        clock = Clock(orchestrator, hour, NAMES[:2])
        chaos = Chaos(servers, folder / "ledger", [NAMES[:4], NAMES[4:]], orchestrators, dice, hour)
        stack.callback(chaos.close)
        started = rough_life(orchestrator, chaos, NAMES, runs, seconds, dice, clock, cluster)
        books = Books.read(folder / "ledger")
        ids = [state.run_id for state in orchestrator.runs(plan="hourly", limit=10_000)]
        planned = [orchestrator.run(each) for each in ids]
        for run in [*started, *planned]:
            books.check(run, orchestrator)
        books.check_locks(started)
        books.check_schedule(clock.hours, planned)
        told = summary(books, started, planned, chaos)
        assert not books.faults, f"seed {seed}: {told}: {books.faults}"
        return told


@pytest.mark.timeout(540)  # its own bound for what is under way is 360 s
def test_runs_survive_orchestrators_that_die_and_stand_still(fresh_server: StartServer, tmp_path: Path) -> None:
    play(fresh_server().url, tmp_path, orchestrators=2, runs=12, seconds=4, seed=random.randrange(10_000))


@pytest.mark.slow
@pytest.mark.timeout(540)  # its own bound for what is under way is 360 s
def test_two_hundred_runs_among_three_orchestrators(fresh_server: StartServer, tmp_path: Path) -> None:
    told = play(fresh_server().url, tmp_path, orchestrators=3, runs=200, seconds=90, seed=random.randrange(10_000))
    logging.getLogger(__name__).warning("%s", told)


@pytest.mark.slow
@pytest.mark.timeout(540)  # its own bound for what is under way is 360 s
def test_runs_survive_servers_of_a_cluster_that_are_killed(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    seed = random.randrange(10_000)
    told = play(cluster.urls, tmp_path, orchestrators=3, runs=60, seconds=60, seed=seed, cluster=cluster)
    logging.getLogger(__name__).warning("%s", told)
