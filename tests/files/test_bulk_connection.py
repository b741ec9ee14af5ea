from __future__ import annotations

import io
from queue import Queue
from typing import TYPE_CHECKING

import pytest
from helpers.edge import gateway_for, url_of
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.connection import bulk
from lightlink.errors import ClosedError, InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartProxy, StartPython

    from lightlink.server import EmbeddedServer


def test_files_have_a_connection_of_their_own_when_needed(proxy: StartProxy) -> None:
    way = proxy()
    with lightlink.connect(way.url, bulk_connection=True) as client:
        client.flush()
        assert way.connections == 1
        info = client.upload(io.BytesIO(b"content"), name="a.txt")
        assert way.connections == 2
        target = io.BytesIO()
        client.download(info.id, target)
        assert target.getvalue() == b"content"
        assert way.connections == 2
        client.delete_file(info.id)


def test_files_share_the_connection_otherwise(proxy: StartProxy) -> None:
    way = proxy()
    with lightlink.connect(way.url) as client:
        client.delete_file(client.upload(io.BytesIO(b"content"), name="a.txt").id)
        assert way.connections == 1


def test_a_closed_client_closes_both(proxy: StartProxy) -> None:
    way = proxy()
    client = lightlink.connect(way.url, bulk_connection=True)
    info = client.upload(io.BytesIO(b"content"), name="a.txt")
    client.close()
    for use in (lambda: client.download(info.id, io.BytesIO()), lambda: client.file_store("other").files()):
        with pytest.raises(ClosedError):
            use()


def test_an_idle_one_closes_and_opens_again_with_the_next_file(
    proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "IDLE_SECONDS", 0.05)
    way = proxy()
    with lightlink.connect(way.url, bulk_connection=True) as client:
        info = client.upload(io.BytesIO(b"content"), name="a.txt")
        for use in (lambda: client.download(info.id, io.BytesIO()), lambda: client.delete_file(info.id)):
            assert eventually(lambda: way.connections == 1)
            use()
        assert client.status is lightlink.Status.CONNECTED


def test_one_that_is_in_use_does_not_close(proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "IDLE_SECONDS", 0.0)
    way = proxy()
    with lightlink.connect(way.url, bulk_connection=True) as client:

        def use_it_meanwhile(_done: int, _total: int | None) -> None:
            client.files()  # comes and goes while the upload stays
            assert way.connections == 2

        content = io.BytesIO(bytes(500_000))
        client.delete_file(client.upload(content, name="a.txt", progress=use_it_meanwhile).id)


def test_a_file_is_announced_by_the_name_of_its_client(proxy: StartProxy, prefix: str) -> None:
    received: Queue[lightlink.FileInfo] = Queue()
    service = lightlink.Service(prefix, proxy().url)
    service.on_file(received.put)
    with service, lightlink.connect(proxy().url, name="sender", bulk_connection=True) as client:
        calls: list[str] = []
        client.add_middleware(lambda call, following: (calls.append(call.kind), following(call))[1])
        info = client.send_file(io.BytesIO(b"content"), to=prefix, name="a.txt")
        assert received.get(timeout=30).sender == "sender"
        assert "publish" in calls
        client.delete_file(info.id)


def test_a_gateway_carries_both_connections(secured: EmbeddedServer, identities: Path) -> None:
    with gateway_for(identities, secured.url) as gateway:
        tls = tls_of(identities, "keeper")
        with lightlink.connect(url_of(gateway), name="keeper", tls=tls, bulk_connection=True) as client:
            assert gateway.counts.streams == 1
            client.delete_file(client.upload(io.BytesIO(b"content"), name="a.txt").id)
            assert gateway.counts.streams == 2


def test_a_forked_child_has_both_connections(python: StartPython, url: str) -> None:
    process = python(
        """
        import io, os, sys, lightlink
        client = lightlink.connect(sys.argv[1], bulk_connection=True)
        first = client.upload(io.BytesIO(b"parent"), name="a.txt")
        child = os.fork()
        if child == 0:
            target = io.BytesIO()
            client.download(first.id, target)
            client.close()
            os._exit(7 if target.getvalue() == b"parent" else 1)
        assert os.waitpid(child, 0)[1] == 7 << 8
        client.delete_file(first.id)
        client.close()
        """,
        url,
    )
    ended = process.wait()
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(("chosen", "streams"), [(None, 2), (False, 1)])
def test_through_a_gateway_there_is_one_by_default(
    secured: EmbeddedServer, identities: Path, chosen: bool | None, streams: int
) -> None:
    with gateway_for(identities, secured.url) as gateway:
        tls = tls_of(identities, "keeper")
        with lightlink.connect(url_of(gateway), name="keeper", tls=tls, bulk_connection=chosen) as client:
            client.delete_file(client.upload(io.BytesIO(b"content"), name="a.txt").id)
            assert gateway.counts.streams == streams


def test_it_is_a_flag() -> None:
    with pytest.raises(InvalidOption, match="bulk_connection"):
        lightlink.connect(bulk_connection="yes")  # type: ignore[arg-type]
