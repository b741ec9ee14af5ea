from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python
from helpers.waiting import eventually

import lightlink
from lightlink.concurrency.registry import Registry
from lightlink.connection.permission_errors import Denials
from lightlink.errors import ClosedError, InvalidOption, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg


@dataclasses.dataclass
class Event:
    user_id: str


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def test_a_client_says_that_it_cannot_be_pickled(client: lightlink.Client) -> None:
    # As `ProcessPoolExecutor.submit(client.call, ...)` would.
    with pytest.raises(TypeError, match=r"each process makes its own with lightlink\.connect"):
        pickle.dumps(client.call)


@pytest.mark.parametrize("headers", ["a: b", [("a", "b")], 5])
def test_headers_that_are_no_mapping_are_refused(client: lightlink.Client, prefix: str, headers: Any) -> None:
    with pytest.raises(InvalidOption, match="headers"):
        client.publish(prefix, 1, headers=headers)


def test_a_listener_that_cannot_be_called_is_refused(client: lightlink.Client) -> None:
    with pytest.raises(InvalidOption, match="listener"):
        client.on_status_change(None)  # type: ignore[arg-type]


@pytest.mark.interop
@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ({"user_id": "U001"}, b'{"user_id":"U001"}'),
        (Event("U001"), b'{"user_id":"U001"}'),
        (None, b"null"),
        ("text", b'"text"'),
        ([1, 2.5, None, True], b"[1,2.5,null,true]"),
        (b"\x00\xff raw", b"\x00\xff raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        (b"", b""),
    ],
)
def test_bytes_are_published_as_they_are_all_else_as_json(
    data: Any, payload: bytes, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    subscription = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    client.publish(prefix, data)
    message: Msg = peer.run(subscription.next_msg(timeout=30))
    assert (message.data, message.headers, message.reply) == (payload, None, "")


@pytest.mark.interop
def test_headers_go_with_the_message(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    subscription = peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    client.publish(prefix, 1, headers={"Trace": "x-1", "Note": "ünï cödé"})
    message: Msg = peer.run(subscription.next_msg(timeout=30))
    assert message.headers == {"Trace": "x-1", "Note": "ünï cödé"}


def test_each_threads_messages_keep_their_order(client: lightlink.Client, url: str, prefix: str) -> None:
    with lightlink.connect(url) as other, other.subscribe(prefix) as subscription:
        threads = [
            threading.Thread(target=lambda t=t: [client.publish(prefix, [t, n]) for n in range(500)]) for t in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        seen = [subscription.get(timeout=30).data for _ in range(4000)]
    for t in range(8):
        assert [n for thread, n in seen if thread == t] == list(range(500))


def test_after_a_flush_the_server_has_what_was_published(client: lightlink.Client, url: str, prefix: str) -> None:
    with lightlink.connect(url) as other, other.subscribe(prefix) as subscription:
        for n in range(100):
            client.publish(prefix, n)
        client.flush()
        other.flush()  # what the server had for us when asked, it has sent
        assert subscription.pending == 100


def test_the_address_comes_from_the_environment_or_a_context(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTLINK_URL", url)
    with lightlink.connect() as client:
        client.flush()
    monkeypatch.delenv("LIGHTLINK_URL")
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "here.json").write_text(json.dumps({"url": url}))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with lightlink.connect(context="here") as client:
        client.flush()


def test_a_client_closes_with_its_block_even_when_that_raises(url: str) -> None:
    with pytest.raises(LookupError), lightlink.connect(url) as client:
        raise LookupError
    with pytest.raises(ClosedError):
        client.publish("x", 1)


def test_two_clients_of_one_process_are_apart(url: str, prefix: str) -> None:
    with lightlink.connect(url, name="one") as one, lightlink.connect(url, name="two") as two:
        with two.subscribe(prefix) as subscription:
            one.publish(prefix, 1)
            assert subscription.get(timeout=30).data == 1
        one.close()
        two.flush()
        assert (one.status, two.status) == (lightlink.Status.CLOSED, lightlink.Status.CONNECTED)


def test_a_client_tells_what_it_is_and_keeps_its_secrets(url: str) -> None:
    with lightlink.connect(url.replace("://", "://me:hush@"), name="teller") as client:
        assert repr(client) == f"<Client 'teller' connected {url}>"
        assert client.options.servers == (url,)
        assert "hush" not in repr(client.options)


def test_a_refused_subscription_is_told_to_all_then_forgotten() -> None:
    denials = Denials("client", certified=False)
    assert not denials.add_subscription("a"), "nobody asks"
    with denials.asking("a"):
        with denials.asking("a"):
            assert denials.add_subscription("a")
            with pytest.raises(PermissionDenied):
                denials.check("a")
        with pytest.raises(PermissionDenied):
            denials.check("a")
        denials.check("b")
    with denials.asking("a"):
        denials.check("a")


def test_refused_publishes_that_nobody_asks_for_do_not_pile_up() -> None:
    denials = Denials("client", certified=False)
    assert denials.take_publish() is None
    for n in range(1000):
        denials.add_publish(PermissionDenied("publish", f"s.{n}"))
    assert len(denials._publishes) <= 100
    assert denials.take_publish() is not None
    assert denials.take_publish() is None


def test_a_registry_keeps_nothing_alive_and_is_read_meanwhile() -> None:
    class Item:
        pass

    registry: Registry[Item] = Registry()
    kept = Item()
    registry.add(kept)
    registry.add(Item())
    eventually(lambda: list(registry) == [kept])
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            registry.add(Item())

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        assert kept in list(registry)
    stop.set()
    for thread in threads:
        thread.join(10)
    registry.discard(kept)
    registry.discard(kept)
    assert kept not in list(registry)


def test_a_client_that_nobody_closed_is_told_of(url: str) -> None:
    def handle_a_request() -> None:
        lightlink.connect(url, name="leaky").publish("x", 1)
        gc.collect()

    with pytest.warns(ResourceWarning, match="the client 'leaky' was never closed: close.. it, use"):
        handle_a_request()


def test_a_client_that_was_closed_is_not_told_of_and_not_kept(url: str) -> None:
    def close() -> weakref.ref[lightlink.Client]:
        client = lightlink.connect(url)
        client.on_status_change(lambda _: client.status)
        client.close()
        return weakref.ref(client)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closed = close()
        eventually(lambda: gc.collect() >= 0 and closed() is None)


def test_a_client_that_receives_still_is_not_told_of(url: str, prefix: str) -> None:
    def receive() -> lightlink.Subscription:
        return lightlink.connect(url).subscribe(prefix)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lightlink.connect(url, lazy=True)
        subscription = receive()
        gc.collect()
        with lightlink.connect(url) as client:
            client.publish(prefix, 1)
        assert subscription.get(timeout=30).data == 1
    subscription.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_tells_nothing_of_its_parents_client(url: str) -> None:
    code = """
        import gc, os, sys, lightlink
        client = lightlink.connect(sys.argv[1])
        child = os.fork()
        client.publish("x", 1)
        client.flush()
        if child == 0:
            del client
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client.close()
    """
    options = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
    done = run_python(code, url, options=options)
    assert (done.returncode, done.stderr) == (0, "")
