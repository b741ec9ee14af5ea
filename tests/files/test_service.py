"""Files sent to services."""

from __future__ import annotations

import io
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import DecodeError, InvalidName, InvalidOption, NotReady, StoredFileNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.raw import RawPeer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url, name="the sender") as connected:
        yield connected


class Received:
    """What a service was sent, with what its handler could fetch."""

    def __init__(self, service: lightlink.Service) -> None:
        self.files: list[tuple[lightlink.FileInfo, bytes]] = []
        self.threads: set[str] = set()
        self._service = service

    def __call__(self, info: lightlink.FileInfo) -> None:
        target = io.BytesIO()
        self._service.client.download(info.id, target)
        self.threads.add(threading.current_thread().name)
        self.files.append((info, target.getvalue()))


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[Callable[..., tuple[lightlink.Service, Received]]]:
    """Start services: ``service("name")``, with what each receives."""
    running: list[lightlink.Service] = []

    def start(name: str = prefix, **options: Any) -> tuple[lightlink.Service, Received]:
        made = lightlink.Service(name, url, **options)
        received = Received(made)
        made.on_file(received)
        running.append(made.start())
        return made, received

    yield start
    for each in running:
        each.stop()


def test_a_service_gets_what_is_sent_to_it(client: lightlink.Client, prefix: str, service: Any) -> None:
    _, received = service()
    info = client.send_file(io.BytesIO(b"content"), to=prefix, name="data.csv", metadata={"k": "v"})
    [(got, content)] = eventually(lambda: received.files)
    assert content == b"content"
    assert (got.id, got.name, got.size, got.digest) == (info.id, "data.csv", 7, info.digest)
    assert (got.sender, got.metadata, got.content_type) == ("the sender", {"k": "v"}, "text/csv")
    assert all(name.startswith(f"lightlink-{prefix}-worker-") for name in received.threads)


def test_only_the_service_that_is_named_gets_it(client: lightlink.Client, prefix: str, service: Any) -> None:
    _, named = service()
    _, other = service(f"{prefix}-other")
    client.send_file(io.BytesIO(b"mine"), to=prefix)
    client.send_file(io.BytesIO(b"both"))
    eventually(lambda: len(named.files) == 2 and other.files)
    assert [content for _, content in named.files] == [b"mine", b"both"]
    assert [content for _, content in other.files] == [b"both"]


def test_one_instance_of_a_service_gets_each_file(client: lightlink.Client, prefix: str, service: Any) -> None:
    instances = [service()[1] for _ in range(3)]
    ids = {client.send_file(io.BytesIO(b"content"), to=prefix).id for _ in range(12)}
    eventually(lambda: sum(len(each.files) for each in instances) >= 12)
    assert sorted(info.id for each in instances for info, _ in each.files) == sorted(ids)


def test_an_announcement_is_what_other_languages_expect(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    async def subscribe(nc: Any) -> Any:
        subscription = await nc.subscribe("file.transfer")
        await nc.flush()
        return subscription

    subscription = peer.run(subscribe)
    info = client.send_file(io.BytesIO(bytes(300_000)), to=prefix, name="zeros.bin")
    while True:
        body = json.loads(peer.run(subscription.next_msg(30)).data)
        if body["to"] == prefix:
            break
    assert body == {
        "file_id": info.id,
        "file_name": "zeros.bin",
        "file_size": 300_000,
        "chunk_num": 3,
        "from": "the sender",
        "to": prefix,
    }


@pytest.mark.parametrize("to", [{}, {"to": ""}, {"to": None}])
def test_an_announcement_of_another_client_is_understood(
    client: lightlink.Client, peer: RawPeer, service: Any, to: dict[str, Any]
) -> None:
    _, received = service()
    info = client.upload(io.BytesIO(b"content"))
    body = {"file_id": info.id, "more": ["to", "come"], **to}
    peer.run(peer.nc.publish("file.transfer", json.dumps(body).encode()))
    [(got, _)] = eventually(lambda: [file for file in received.files if file[0].id == info.id])
    assert got.sender == ""


def test_a_file_without_a_name_has_that_of_its_announcement(
    client: lightlink.Client, peer: RawPeer, service: Any, prefix: str
) -> None:
    _, received = service()
    client.upload(io.BytesIO(b"makes the bucket"))
    file_id = str(uuid.uuid4())

    async def put(nc: Any) -> None:
        store = await nc.jetstream().object_store("light_link_files")
        await store.put(file_id, b"content")

    peer.run(put)
    body = {"file_id": file_id, "file_name": "naïve name.bin", "to": prefix}
    peer.run(peer.nc.publish("file.transfer", json.dumps(body).encode()))
    [(got, _)] = eventually(lambda: [file for file in received.files if file[0].id == file_id])
    assert got.name == "naïve name.bin"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"file_id": 7}', b'{"file_id": ""}'])
def test_a_malformed_announcement_is_reported(client: lightlink.Client, prefix: str, service: Any, body: bytes) -> None:
    reported: list[Exception] = []
    _, received = service(on_error=reported.append)
    client.publish("file.transfer", body)
    client.send_file(io.BytesIO(b"content"), to=prefix)
    eventually(lambda: received.files)
    assert [type(error) for error in reported] == [DecodeError]
    assert reported[0].subject == "file.transfer"  # type: ignore[attr-defined]


def test_an_announced_file_that_is_not_there_is_reported(client: lightlink.Client, prefix: str, service: Any) -> None:
    reported: list[Exception] = []
    _, received = service(on_error=reported.append)
    client.publish("file.transfer", {"file_id": "gone", "to": prefix})
    client.send_file(io.BytesIO(b"content"), to=prefix)
    eventually(lambda: received.files)
    assert [type(error) for error in reported] == [StoredFileNotFound]


def test_several_files_are_handled_at_a_time_where_wanted(url: str, client: lightlink.Client, prefix: str) -> None:
    both = threading.Barrier(2, timeout=30)
    served = lightlink.Service(prefix, url)
    met = threading.Event()

    @served.on_file(concurrency=2)
    def on_file(info: lightlink.FileInfo) -> None:
        both.wait()
        met.set()

    with served:
        for _ in range(2):
            client.send_file(io.BytesIO(b"content"), to=prefix)
        assert met.wait(30)
    assert on_file.__name__ == "on_file"


def test_a_file_is_sent_to_a_service_and_nothing_else(client: lightlink.Client, tmp_path: Any) -> None:
    with pytest.raises(InvalidName, match="service name"):
        client.send_file(io.BytesIO(b"content"), to="not.a.service")
    with pytest.raises(FileNotFoundError):
        client.send_file(tmp_path / "absent")
    with pytest.raises(InvalidOption, match="light_link_files"):
        client.file_store("other").send(io.BytesIO(b"content"))


def test_what_cannot_handle_files_is_refused(url: str, prefix: str) -> None:
    served = lightlink.Service(prefix, url)
    with pytest.raises(InvalidOption, match="one argument"):
        served.on_file(lambda: None)
    served.on_file(lambda info: None)
    with pytest.raises(InvalidOption, match="registered already"):
        served.on_file(lambda info: None)
    with served, pytest.raises(NotReady):
        served.on_file(lambda info: None)
