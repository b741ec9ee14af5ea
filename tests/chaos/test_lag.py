"""A server of a cluster that was away has less than the others have acknowledged, and answers as if it were all."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink
from chaos.nodes import leader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.server import EmbeddedCluster

KEYS = 3000


@pytest.fixture
def client(cluster: EmbeddedCluster) -> Iterator[lightlink.Client]:
    with lightlink.connect(cluster.urls, timeout=30) as connected:
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


def test_a_client_reads_what_it_has_set_whichever_server_answers(cluster: EmbeddedCluster, prefix: str) -> None:
    for url in cluster.urls:
        with lightlink.connect(url, timeout=30) as client:
            bucket = client.state(prefix, replicas=3)
            for number in range(1000):
                revision = bucket.set("counter", number)
                entry = bucket.entry("counter")
                assert (entry.value, entry.revision) == (number, revision)
            bucket.delete("counter")
            assert bucket.get("counter", None) is None


def test_who_lost_a_race_reads_nothing_older_and_wins_in_the_end(
    cluster: EmbeddedCluster, client: lightlink.Client, prefix: str
) -> None:
    client.state(prefix, replicas=3).set("counter", 0)
    lost: list[int] = []

    def count() -> None:
        with lightlink.connect(cluster.urls, timeout=30) as own:
            bucket = own.state(prefix)
            for _ in range(200):
                revision = 0
                while True:
                    entry = bucket.entry("counter")
                    assert entry.revision >= revision
                    revision = entry.revision
                    try:
                        bucket.update("counter", entry.value + 1, revision=revision)
                    except lightlink.RevisionConflict:
                        lost.append(revision)
                    else:
                        break

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(count) for _ in range(3)]:
            each.result()
    assert lost
    # This client has written none of them, and may miss the last for a moment.
    eventually(lambda: client.state(prefix).get("counter") == 600)


def test_a_reader_does_not_wait_for_a_server_that_is_dead(
    cluster: EmbeddedCluster, client: lightlink.Client, prefix: str
) -> None:
    bucket = client.state(prefix, replicas=3)
    bucket.set("key", 1)
    # For a moment the others give consumers to the dead server, too: those are never made.
    with without_one(cluster, f"KV_{prefix}"), ThreadPoolExecutor(12) as pool:
        for reading in [pool.submit(bucket.history, "key", timeout=30) for _ in range(12)]:
            assert [change.value for change in reading.result()] == [1]


def make_or_be_refused(bucket: lightlink.StateBucket[int]) -> None:
    """Write to a bucket that is not there yet: a new meta leader may never have heard of the server that is dead."""
    try:
        bucket.set("first", 1)
    except lightlink.StateError as exc:
        if "no suitable peers for placement" not in str(exc):
            raise


def test_requests_during_elections_are_answered_or_refused(cluster: EmbeddedCluster, prefix: str) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(lightlink.connect(cluster.urls, timeout=30))
        bucket, files = client.state(prefix, replicas=3), client.file_store(f"{prefix}_files", replicas=3)
        revision, _ = bucket.set("first", 1), bucket.set("read", 1)
        kept, removed = (files.upload(io.BytesIO(name)) for name in (b"kept", b"removed"))
        leader_of(cluster, f"KV_{prefix}").kill()
        killed = time.monotonic()
        assert bucket.get("read") == 1  # the others tell it too
        try:
            bucket.update("first", 2, revision=revision, timeout=0.3)
        except lightlink.StateError as exc:
            if not exc.unknown:  # the leader itself may have got it
                assert bucket.update("first", 3, revision=revision) > revision
        else:  # on a machine that stood still for so long, others have had the time to elect
            assert time.monotonic() - killed > 3
        asked = {
            "set": lambda: bucket.set("second", 2),
            "create": lambda: bucket.create("third", 3),
            "delete": lambda: bucket.delete("fourth"),
            "keys": lambda: bucket.keys("first"),
            "watch": lambda: stack.enter_context(bucket.watch("first")).get(timeout=30),
            "make": lambda: make_or_be_refused(client.state(f"{prefix}_new", replicas=3)),
            "info": lambda: files.info(kept.id),
            "list": files.files,
            "remove": lambda: files.delete(removed.id),
            "upload": lambda: files.upload(io.BytesIO(b"more")),
        }
        with ThreadPoolExecutor(len(asked)) as pool:
            asking = [pool.submit(ask) for ask in asked.values()]
            for each in asking:
                each.result()
        assert bucket.keys() == ["first", "read", "second", "third"]
        assert {info.size for info in files.files()} == {4}
