"""A server of a cluster that was away has less than the others have acknowledged, and answers as if it were all."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import lightlink
from chaos.nodes import leader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.server import EmbeddedCluster

KEYS = 3000


@pytest.fixture
def client(cluster: EmbeddedCluster) -> Iterator[lightlink.Client]:
    with lightlink.connect(cluster.urls) as connected:
        yield connected


@contextlib.contextmanager
def without_one(cluster: EmbeddedCluster, stream: str) -> Iterator[None]:
    """Kill one server that does not lead a stream, and bring it back in the end."""
    leader = leader_of(cluster, stream)
    away = next(node for node in cluster.nodes if node is not leader)
    away.kill()
    yield
    away.start()


def keep_checking(cluster: EmbeddedCluster, check: Callable[[], object]) -> None:
    """Call ``check`` again and again, on three threads, until all servers have caught up and a little longer."""
    caught_up = threading.Event()

    def go_on() -> None:
        while not caught_up.is_set():
            check()
        for _ in range(5):
            check()

    with ThreadPoolExecutor(3) as pool:
        checking = [pool.submit(go_on) for _ in range(3)]
        try:
            cluster.wait_ready(60)
        finally:
            caught_up.set()
        for each in checking:
            each.result()


def test_a_file_is_whole_though_a_server_has_not_caught_up(
    cluster: EmbeddedCluster, client: lightlink.Client, prefix: str
) -> None:
    store = client.file_store(prefix, replicas=3)
    first = store.upload(io.BytesIO(b"first"))
    content = os.urandom(600_000)
    with without_one(cluster, f"OBJ_{prefix}"):
        others = [store.upload(io.BytesIO(content), chunk_size=16 * 1024) for _ in range(30)]
        store.delete(first.id)

    def check() -> None:
        target = io.BytesIO()
        store.download(others[-1].id, target)
        assert target.getvalue() == content
        assert {info.id for info in store.files()} == {info.id for info in others}

    keep_checking(cluster, check)


def test_all_keys_are_told_though_a_server_has_not_caught_up(
    cluster: EmbeddedCluster, client: lightlink.Client, prefix: str
) -> None:
    bucket = client.state(prefix, replicas=3, history=5)
    bucket.set("removed", "old")
    bucket.set("kept", "old")
    with without_one(cluster, f"KV_{prefix}"):
        for number in range(KEYS):
            client.publish(f"$KV.{prefix}.{number}", number)
        bucket.set("kept", "new", timeout=30)
        bucket.delete("removed", timeout=30)

    def check() -> None:
        assert len(bucket.keys(timeout=30)) == KEYS + 1
        assert [change.value for change in bucket.history("kept")] == ["old", "new"]
        with bucket.watch("kept") as watch:
            assert list(watch.current(timeout=30))[-1].value == "new"

    keep_checking(cluster, check)
