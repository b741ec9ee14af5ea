"""Watches: what they tell, in which order, across outages, and how they end."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import ClosedError, DecodeError, InvalidOption, NoMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from helpers.raw import RawPeer

Change = lightlink.StateChange[Any]


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def bucket(client: lightlink.Client, prefix: str) -> lightlink.StateBucket[Any]:
    """A bucket that is not made yet, with a history so that no change is overwritten before it is told."""
    return client.state(prefix, history=8)


def told(change: Change) -> tuple[str, Any, str]:
    return change.key, change.value, change.operation


def take(changes: queue.Queue[Change], count: int, timeout: float = 30.0) -> list[tuple[str, Any, str]]:
    return [told(changes.get(timeout=timeout)) for _ in range(count)]


# What a watch tells -------------------------------------------------------------------------------------------------


def test_a_watch_tells_the_values_first_and_then_every_change(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("a", 1)
    bucket.set("b", 2)
    bucket.set("a", 3)
    changes: queue.Queue[Change] = queue.Queue()
    with bucket.watch(">", changes.put):
        assert take(changes, 2) == [("b", 2, "put"), ("a", 3, "put")]
        bucket.set("b", 4)
        bucket.delete("a")
        bucket.set("a", 5)
        bucket.purge("b")
        assert take(changes, 4) == [("b", 4, "put"), ("a", None, "delete"), ("a", 5, "put"), ("b", None, "purge")]
    assert changes.empty()


def test_the_values_end_though_some_are_removed_meanwhile(
    client: lightlink.Client, bucket: lightlink.StateBucket[Any], peer: RawPeer
) -> None:
    """More than a reader asks for at once, so that the server still has some of them when they are removed."""
    bucket.set("0", 0)
    for number in range(1, 1000):
        client.publish(f"$KV.{bucket.name}.{number}", number)
    client.flush()
    with bucket.watch() as watch:
        first = watch.get(30)
        peer.run(peer.nc.jetstream().purge_stream(f"KV_{bucket.name}"))
        values = [first.value, *(change.value for change in watch.current(timeout=30))]
    assert values == list(range(len(values)))
    assert len(values) < 1000


def test_changes_carry_revision_and_time(bucket: lightlink.StateBucket[Any]) -> None:
    revision = bucket.set("key", 1)
    with bucket.watch() as watch:
        change = watch.get(30)
    entry = bucket.entry("key")
    assert (change.revision, change.created) == (revision, entry.created)


def test_only_keys_that_match_are_told(bucket: lightlink.StateBucket[Any]) -> None:
    with bucket.watch("device.*") as watch:
        for key in ("device.a", "device.a.t", "adevice.a", "device.b", "device"):
            bucket.set(key, key)
        assert [watch.get(30).key for _ in range(2)] == ["device.a", "device.b"]
        with pytest.raises(NoMessage, match=r"device\.\*"):
            watch.get(0.1)


def test_a_key_removed_before_the_start_is_not_told(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("gone", 1)
    bucket.delete("gone")
    bucket.set("purged", 1)
    bucket.purge("purged")
    bucket.set("there", 1)
    with bucket.watch() as watch:
        assert [change.key for change in watch.current()] == ["there"]
        bucket.delete("gone")
        assert told(watch.get(30)) == ("gone", None, "delete")


def test_a_watch_makes_the_bucket(bucket: lightlink.StateBucket[Any]) -> None:
    with bucket.watch() as watch:
        assert list(watch.current()) == []
        bucket.set("key", 1)
        assert watch.get(30).value == 1


def test_the_current_values_end_where_the_changes_begin(bucket: lightlink.StateBucket[Any]) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: bucket.set(f"key.{n}", n), range(700)))
    with bucket.watch() as watch:
        assert not watch.wait_current(0.05)  # nobody has read them yet
        bucket.set("key.0", "changed")
        assert {change.key for change in watch.current()} >= {f"key.{n}" for n in range(1, 700)}
        assert watch.wait_current()
        assert list(watch.current()) == []


def test_a_handler_has_had_the_current_values_after_wait_current(bucket: lightlink.StateBucket[Any]) -> None:
    for n in range(20):
        bucket.set(f"key.{n}", n)
    seen: list[Any] = []
    with bucket.watch(">", lambda change: seen.append(change.value)) as watch:
        assert watch.wait_current(10)
        assert seen == list(range(20))
    with bucket.watch("none.*", seen.append) as watch:
        assert watch.wait_current(10)
    assert len(seen) == 20


def test_large_values_all_come_though_they_do_not_fit_the_window(bucket: lightlink.StateBucket[Any]) -> None:
    # 30 MB, of which a reader that limits its pull requests in bytes lost some: see runtime/position.py.
    for n in range(40):
        bucket.set(f"key.{n}", b'"%s"' % (b"x" * 750_000))
    bucket.set("small", 1)
    with bucket.watch() as watch:
        assert [change.key for change in watch.current()] == [f"key.{n}" for n in range(40)] + ["small"]
        for n in range(40):
            bucket.set(f"key.{n}", b'"%s"' % (b"y" * 750_000))
        assert [watch.get(30).key for _ in range(40)] == [f"key.{n}" for n in range(40)]


def test_a_slow_reader_gets_everything_in_order(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, history=64)
    with bucket.watch() as watch:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: bucket.set(f"key.{n % 50}", n), range(2000)))
        assert watch.pending < 300  # the rest waits on the server
        revisions = [watch.get(30).revision for _ in range(2000)]
    assert revisions == list(range(1, 2001))


def test_a_value_that_is_not_json_goes_to_the_error_hook(url: str, prefix: str, peer: RawPeer) -> None:
    errors: queue.Queue[Exception] = queue.Queue()
    with lightlink.connect(url, on_error=errors.put) as client:
        bucket = client.state(prefix)
        bucket.set("good", 1)
        peer.run(peer.nc.jetstream().publish(f"$KV.{prefix}.bad", b"{not json"))
        changes: queue.Queue[Change] = queue.Queue()
        with bucket.watch(">", changes.put) as handled, bucket.watch() as watch:
            assert handled.wait_current(5)
            assert [change.value for change in watch.current()] == [1]
            bucket.set("good", 2)
            assert [changes.get(timeout=30).value for _ in range(2)] == [1, 2]
            assert watch.get(30).value == 2
        for _ in range(2):
            error = errors.get(timeout=30)
            assert isinstance(error, DecodeError)
            assert error.subject == f"$KV.{prefix}.bad"


def test_a_handler_that_raises_gets_the_next_change(url: str, prefix: str) -> None:
    errors: queue.Queue[Exception] = queue.Queue()
    changes: queue.Queue[Change] = queue.Queue()

    def handle(change: Change) -> None:
        changes.put(change)
        raise ZeroDivisionError(change.key)

    with lightlink.connect(url, on_error=errors.put) as client:
        bucket = client.state(prefix)
        with bucket.watch(">", handle):
            bucket.set("a", 1)
            bucket.set("b", 1)
            assert take(changes, 2) == [("a", 1, "put"), ("b", 1, "put")]
            assert [str(errors.get(timeout=30)) for _ in range(2)] == ["a", "b"]


def test_a_handler_may_use_the_bucket(bucket: lightlink.StateBucket[Any]) -> None:
    done = threading.Event()

    def mirror(change: Change) -> None:
        bucket.set(f"copy.{change.key}", change.value)
        done.set()

    with bucket.watch("original", mirror):
        bucket.set("original", 5)
        assert done.wait(30)
    assert bucket.get("copy.original") == 5


def test_a_handler_that_is_none_is_refused(bucket: lightlink.StateBucket[Any]) -> None:
    async def coroutine(change: Change) -> None: ...

    class Called:
        async def __call__(self, change: Change) -> None: ...

    for handler in ("text", coroutine, Called(), lambda: None, lambda change, more: None):
        with pytest.raises(InvalidOption, match="handler"):
            bucket.watch(">", handler)  # type: ignore[arg-type]
    with bucket.watch(">", print) as watch, pytest.raises(InvalidOption, match="handler"):
        watch.get(1)


# Outages ------------------------------------------------------------------------------------------------------------


def test_a_watch_goes_on_after_a_kill_of_the_server(fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url) as client, lightlink.connect(server.url) as writer:
        for n in range(5):
            writer.set_state(f"key.{n}", 0)
        changes: queue.Queue[Change] = queue.Queue()
        client.watch_state("key.*", changes.put)
        assert len(take(changes, 5)) == 5
        for generation in range(1, 4):
            server.kill()
            server.start()
            assert writer.wait_connected(30)
            eventually(lambda: writer.get_state("key.0", default=None) == generation - 1, timeout=30)  # noqa: B023
            for n in range(4):
                writer.set_state(f"key.{n}", generation, timeout=30)
            writer.delete_state("key.4")
            expected = [(f"key.{n}", generation, "put") for n in range(4)] + [("key.4", None, "delete")]
            assert take(changes, 5) == expected
        assert changes.empty()


def test_changes_during_an_outage_are_told_once_each(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client, lightlink.connect(url) as writer:
        ours, theirs = client.state(prefix, history=5), writer.state(prefix, history=5)
        theirs.set("a", 1)
        theirs.set("b", 1)
        changes: queue.Queue[Change] = queue.Queue()
        ours.watch(">", changes.put)
        assert take(changes, 2) == [("a", 1, "put"), ("b", 1, "put")]
        link.refuse()
        link.cut()
        theirs.set("a", 2)
        theirs.set("a", 3)
        theirs.delete("b")
        theirs.set("c", 1)
        link.accept()
        assert take(changes, 4) == [("a", 2, "put"), ("a", 3, "put"), ("b", None, "delete"), ("c", 1, "put")]
        theirs.set("c", 2)
        assert take(changes, 1) == [("c", 2, "put")]
        assert changes.empty()


def test_many_cuts_lose_and_repeat_nothing(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client, lightlink.connect(url) as writer:
        theirs = writer.state(prefix, history=64)
        theirs.set("key", 0)
        watch = client.state(prefix).watch()
        revisions = [watch.get(30).revision]
        for round_ in range(10):
            for n in range(30):
                theirs.set("key", n)
                if n == 3 * round_:
                    link.cut()
            revisions += [watch.get(20).revision for _ in range(30)]
        assert revisions == list(range(1, 302))


def test_an_outage_while_the_current_values_come_loses_none(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client, lightlink.connect(url) as writer:
        theirs = writer.state(prefix)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: theirs.set(f"key.{n}", 0), range(1000)))
        keys = theirs.keys()
        watch = client.state(prefix).watch()
        seen = {change.key: change.value for change in (watch.get(30) for _ in range(100))}
        link.refuse()
        link.cut()
        theirs.delete(keys[0])
        for key in keys[1:200]:
            theirs.set(key, 1)
        link.accept()
        for change in watch.current():
            seen[change.key] = change.value
        while any(seen.get(key) != 1 for key in keys[1:200]) or seen.get(keys[0]) is not None:
            change = watch.get(30)
            seen[change.key] = change.value
        assert {key for key, value in seen.items() if value == 0} == set(keys[200:])


def test_a_watch_whose_consumer_is_removed_goes_on(
    bucket: lightlink.StateBucket[Any], prefix: str, peer: RawPeer
) -> None:
    bucket.set("key", 1)
    with bucket.watch() as watch:
        assert watch.get(30).value == 1

        async def remove_consumers() -> int:
            js = peer.nc.jetstream()
            consumers = await js.consumers_info(f"KV_{prefix}")
            for consumer in consumers:
                await js.delete_consumer(f"KV_{prefix}", consumer.name)
            return len(consumers)

        assert peer.run(remove_consumers()) == 1
        bucket.set("key", 2)
        assert told(watch.get(30)) == ("key", 2, "put")


def is_set(bucket: lightlink.StateBucket[Any], key: str, value: int) -> bool:
    try:
        bucket.set(key, value)
    except lightlink.StateError as exc:
        if not exc.unknown:
            raise
        return False
    return True


def test_a_watch_finds_the_values_of_a_bucket_that_was_made_anew(
    bucket: lightlink.StateBucket[Any], prefix: str, peer: RawPeer
) -> None:
    for n in range(5):
        bucket.set("old", n)
    with bucket.watch() as watch:
        assert watch.get(30).value == 4
        js = peer.nc.jetstream()
        peer.run(js.delete_stream(f"KV_{prefix}"))
        # The watch makes it again. A write at the moment of the removal may get no answer from the server.
        eventually(lambda: is_set(bucket, "new", 1))
        # Its revisions start at 1 again, below those the watch has seen.
        assert told(watch.get(30)) == ("new", 1, "put")
        bucket.set("newer", 2)
        assert told(next(change for change in watch if change.key == "newer")) == ("newer", 2, "put")


@pytest.mark.parametrize("since", ["now", 4])
def test_a_watch_from_a_revision_finds_a_bucket_made_anew(
    bucket: lightlink.StateBucket[Any], prefix: str, peer: RawPeer, since: Any
) -> None:
    for n in range(5):
        bucket.set("old", n)
    with bucket.watch(since=since) as watch:
        peer.run(peer.nc.jetstream().delete_stream(f"KV_{prefix}"))
        eventually(lambda: is_set(bucket, "new", 1))
        assert told(next(change for change in watch if change.key == "new")) == ("new", 1, "put")


def test_a_watch_outlives_a_server_that_keeps_nothing(fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url) as client:
        bucket = client.state("cache", storage="memory")
        bucket.set("key", 1)
        with bucket.watch() as watch:
            assert watch.get(30).value == 1
            server.kill()
            server.start()
            assert client.wait_connected(30)
            eventually(lambda: client.state("other").set("is-up", 1, timeout=30))
            bucket.set("key", 2, timeout=30)
            assert told(watch.get(30)) == ("key", 2, "put")


def test_a_half_open_connection_shows_by_missing_heartbeats(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url, ping_interval=0.5) as client, lightlink.connect(url) as writer:
        theirs = writer.state(prefix)
        theirs.set("key", 1)
        watch = client.state(prefix).watch()
        assert watch.get(30).value == 1
        link.pause()
        theirs.set("key", 2)
        eventually(lambda: client.status is lightlink.Status.RECONNECTING, timeout=30)
        link.cut()
        link.resume()
        assert watch.get(30).value == 2


# The end ------------------------------------------------------------------------------------------------------------


def test_stop_returns_at_once_though_the_handler_hangs(
    bucket: lightlink.StateBucket[Any], prefix: str, peer: RawPeer
) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: bucket.set(f"key.{n}", n), range(1000)))
    entered, leave = threading.Event(), threading.Event()
    handled: list[Any] = []

    def hang(change: Change) -> None:
        handled.append(change)
        entered.set()
        leave.wait(30)

    watch = bucket.watch(">", hang)
    assert entered.wait(30)
    eventually(lambda: watch.pending > 100)
    stopper = threading.Thread(target=watch.stop)
    stopper.start()
    stopper.join(10)  # the handler hangs three times as long
    assert not stopper.is_alive()
    assert (watch.closed, watch.pending) == (True, 0)
    leave.set()
    watch.stop()
    eventually(lambda: not peer.run(peer.nc.jetstream().consumers_info(f"KV_{prefix}")))
    assert len(handled) == 1


def test_stop_can_wait_for_the_handlers_last_change(bucket: lightlink.StateBucket[Any]) -> None:
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def handle(change: Change) -> None:
        entered.set()
        leave.wait(30)
        left.set()

    bucket.set("key", 1)
    watch = bucket.watch(">", handle)
    assert entered.wait(30)
    threading.Timer(0.1, leave.set).start()
    watch.stop(timeout=30)
    assert left.is_set()


def test_a_handler_can_stop_its_watch(bucket: lightlink.StateBucket[Any]) -> None:
    stopped = threading.Event()
    handled: list[Any] = []

    def handle(change: Change) -> None:
        handled.append(change.value)
        watch.stop(timeout=5)
        stopped.set()

    watch = bucket.watch(">", handle)
    bucket.set("key", 1)
    bucket.set("key", 2)
    assert stopped.wait(30)
    bucket.set("key", 3)
    assert handled == [1]


def test_stop_ends_the_wait_of_a_reader(bucket: lightlink.StateBucket[Any]) -> None:
    watch = bucket.watch()
    with ThreadPoolExecutor(3) as pool:
        iterating = pool.submit(list, watch)
        getting = pool.submit(watch.get)
        waiting = pool.submit(watch.wait_current, 30)
        eventually(lambda: watch.wait_current(0.1))
        watch.stop()
        assert iterating.result(30) == []
        with pytest.raises(ClosedError):
            getting.result(30)
        assert waiting.result(30)
    watch.stop()
    with pytest.raises(ClosedError, match="watch"):
        watch.get(1)
    assert list(watch) == []


def test_closing_the_client_ends_its_watches(url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    watch = client.state(prefix).watch()
    with ThreadPoolExecutor(1) as pool:
        iterating = pool.submit(list, watch)
        client.close()
        assert iterating.result(30) == []
    assert watch.closed


def test_a_stopped_watch_leaves_nothing_behind(
    client: lightlink.Client, bucket: lightlink.StateBucket[Any], prefix: str, peer: RawPeer
) -> None:
    bucket.set("key", 1)
    listeners = list(client._connection._listeners)
    watches = [bucket.watch() for _ in range(5)]
    assert [watch.get(30).value for watch in watches] == [1] * 5
    for watch in watches:
        watch.stop()
    assert bucket.keys() == ["key"]
    assert client._connection._listeners == listeners
    eventually(lambda: not peer.run(peer.nc.jetstream().consumers_info(f"KV_{prefix}")))
