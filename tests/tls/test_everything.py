"""The whole link once over mutual TLS: calls, events, state and files, between two identities with their roles."""

from __future__ import annotations

import hashlib
import queue
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.pki import tls_of

import lightlink
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

    from lightlink.certs import CertificateAuthority

MEBIBYTE = 1024 * 1024


@attrs.frozen
class Ends:
    """A client, the service it talks to, what came to the service's handlers, and what the error hooks were told."""

    client: lightlink.Client
    service: lightlink.Service
    arrived: queue.SimpleQueue[Any]
    errors: list[Exception]


@pytest.fixture
def ends(fresh_server: StartServer, authority: CertificateAuthority) -> Iterator[Ends]:
    """A service and a client that may do everything with each other, and no more."""
    folder = authority.directory
    authority.issue_server(["127.0.0.1"])
    authority.issue("store", "service", publish=["events.stored"], subscribe=["events.new"], state=True, files=True)
    authority.issue("web", "client", subscribe=["events.stored"], state=True, files=True)
    server = fresh_server(tls=folder)
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    errors: list[Exception] = []
    service = lightlink.Service("store", server.url, tls=tls_of(folder, "store"), on_error=errors.append)

    @service.rpc
    def double(n: int) -> int:
        return 2 * n

    @service.on("events.new")
    def new(data: dict[str, Any]) -> None:
        service.client.publish("events.stored", data)

    @service.on_file
    def stored(info: lightlink.FileInfo) -> None:
        arrived.put(info)

    with (
        service,
        lightlink.connect(server.url, tls=tls_of(folder, "web"), name="web", on_error=errors.append) as client,
    ):
        yield Ends(client, service, arrived, errors)
        client.flush()
        service.client.flush()
    assert errors == []


def test_calls_and_events(ends: Ends) -> None:
    assert ends.client.call("store", "double", {"n": 21}) == 42
    futures = [ends.client.submit("store", "double", {"n": n}) for n in range(500)]
    assert [future.result(20) for future in futures] == [2 * n for n in range(500)]
    with pytest.raises(lightlink.InvalidArguments):
        ends.client.call("store", "double", {"n": "one"})
    with pytest.raises(lightlink.ServiceUnavailable):
        ends.client.call("nobody", "there")
    stored = ends.client.subscribe("events.stored")
    for n in range(100):
        ends.client.publish("events.new", {"n": n, "padding": "x" * 10_000})
    assert sorted(stored.get(timeout=30).data["n"] for _ in range(100)) == [*range(100)]


def test_state(ends: Ends) -> None:
    state = ends.client.state()
    revision = ends.client.set_state("device.a", {"t": 1})
    with ends.service.client.watch_state("device.*") as watch:
        assert watch.get(timeout=30).value == {"t": 1}
        newer = ends.client.update_state("device.a", {"t": 2}, revision=revision)
        assert watch.get(timeout=30).value == {"t": 2}
        ends.client.delete_state("device.a")
        assert watch.get(timeout=30).operation == "delete"
    with pytest.raises(lightlink.RevisionConflict):
        ends.client.update_state("device.a", {"t": 3}, revision=newer)
    with pytest.raises(lightlink.StateNotFound):
        ends.client.get_state("device.a")
    assert ends.service.client.state().create("device.b", [1], ttl=None) > newer
    assert state.keys() == ["device.b"]
    assert [change.operation for change in state.history("device.a")][-1] == "delete"
    state.purge("device.a")
    assert state.entry("device.b").value == [1]


def test_files(ends: Ends, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"".join(hashlib.sha256(codec.encode_json(n)).digest() for n in range(5 * MEBIBYTE // 32)))
    info = ends.client.send_file(source, to="store")
    announced = ends.arrived.get(timeout=30)
    assert (announced.id, announced.size) == (info.id, 5 * MEBIBYTE)
    ends.service.client.download(announced.id, target)
    assert target.read_bytes() == source.read_bytes()
    assert [each.id for each in ends.client.files()] == [info.id]
    ends.client.delete_file(info.id)
    with pytest.raises(lightlink.StoredFileNotFound):
        ends.service.client.download(info.id, target)
    assert ends.client.files() == []


def test_a_state_bucket_and_a_link_outlive_the_server_over_tls(
    fresh_server: StartServer, authority: CertificateAuthority
) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("web", state=True)
    server = fresh_server(tls=authority.directory)
    with lightlink.connect(server.url, tls=tls_of(authority.directory, "web")) as client:
        client.set_state("kept", 1)
        with client.watch_state("kept") as watch:
            assert watch.get(timeout=30).value == 1
            server.kill()
            server.start()
            assert client.wait_connected(20)
            client.set_state("kept", 2)
            assert watch.get(timeout=30).value == 2
