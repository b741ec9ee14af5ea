"""Buckets of files as a whole: how they are made, listed and removed."""

from __future__ import annotations

import io
import queue
from typing import TYPE_CHECKING, Any

import pytest
from helpers.raw import RawPeer

import lightlink
from lightlink.cli import main
from lightlink.errors import InvalidOption, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def test_a_file_store_is_made_as_its_options_say(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    store = client.file_store(
        prefix,
        ttl=600,
        max_bytes=1_000_000,
        compression=True,
        metadata={"owner": "ops"},
        placement={"tags": ["ssd"]},
        description="readings",
    )
    assert store.store_info() is None
    store.upload(io.BytesIO(b"text" * 100))
    info = store.store_info()
    assert info is not None
    assert (info.name, info.messages, info.ttl, info.max_bytes) == (prefix, 2, 600.0, 1_000_000)
    assert (info.storage, info.replicas, info.compression, info.description) == ("file", 1, True, "readings")
    assert info.metadata["owner"] == "ops"
    assert info.bytes > 0
    theirs = peer.run(peer.nc.jetstream().stream_info(f"OBJ_{prefix}")).config
    assert theirs.metadata is not None
    assert theirs.metadata["owner"] == "ops"
    assert theirs.placement is not None
    assert theirs.placement.tags == ["ssd"]
    assert store.destroy()


def test_all_file_stores_are_listed_and_one_is_removed(client: lightlink.Client, prefix: str) -> None:
    for name in ("one", "two"):
        client.file_store(f"{prefix}-{name}").upload(io.BytesIO(b"x"))
    client.state(f"{prefix}-state").set("key", 1)  # is none
    names = [each.name for each in client.file_stores()]
    assert names == sorted(names)
    assert {f"{prefix}-one", f"{prefix}-two"} <= set(names)
    assert f"{prefix}-state" not in names
    store = client.file_store(f"{prefix}-one")
    assert store.destroy()
    assert not store.destroy()
    assert f"{prefix}-one" not in {each.name for each in client.file_stores()}
    assert store.files() == []
    again = store.upload(io.BytesIO(b"again"))
    assert [each.id for each in store.files()] == [again.id]
    for name in ("one", "two"):
        assert client.file_store(f"{prefix}-{name}").destroy()
    client.state(f"{prefix}-state").destroy()


def test_who_made_an_upload_before_makes_the_store_again(url: str, prefix: str) -> None:
    """Another client has removed it meanwhile."""
    with lightlink.connect(url) as mine, lightlink.connect(url) as other:
        store = mine.file_store(prefix)
        store.upload(io.BytesIO(b"x"))
        assert other.file_store(prefix).destroy()
        assert store.upload(io.BytesIO(b"y")).size == 1
        assert store.destroy()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("compression", "s2"),
        ("metadata", {"a": 1}),
        ("description", 1),
        ("placement", {"where": "here"}),
        ("placement", {"tags": "ssd"}),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: Any, client: lightlink.Client) -> None:
    with pytest.raises(InvalidOption, match=option):
        client.file_store("x", **{option: value})


def test_a_file_is_sent_though_another_publish_was_refused(fresh_server: StartServer) -> None:
    config = """
        accounts { A { jetstream: enabled, users: [
            { user: app, password: app, permissions { publish { deny: ["secret.>"] } } }
        ] } }
    """
    server = fresh_server(config=config)
    refused: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    with lightlink.connect(server.url, user="app", password="app", on_error=refused.put) as client:
        client.publish("secret.x", 1)
        assert isinstance(refused.get(timeout=30), PermissionDenied)
        client.send_file(io.BytesIO(b"x"), to="reports")
        with pytest.raises(PermissionDenied, match=r"secret\.x"):
            client.flush()  # it belongs to whoever published there
        client.flush()


def test_who_may_not_remove_a_store_is_told_so(fresh_server: StartServer) -> None:
    config = """
        accounts { A { jetstream: enabled, users: [
            { user: app, password: app, permissions {
                publish { deny: ["$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.LIST"] }
            } }
        ] } }
    """
    server = fresh_server(config=config)
    with lightlink.connect(server.url, user="app", password="app") as client:
        client.upload(io.BytesIO(b"x"))
        with pytest.raises(PermissionDenied, match=r"STREAM\.DELETE"):
            client.file_store().destroy()
        with pytest.raises(PermissionDenied, match=r"STREAM\.LIST"):
            client.file_stores()
        assert len(client.files()) == 1


def test_file_stores_are_listed_and_removed_on_the_command_line(
    url: str, prefix: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lightlink.connect(url) as client:
        client.file_store(prefix, max_bytes=2_000_000).upload(io.BytesIO(b"x"))
    assert main(["file", "buckets", f"--url={url}"]) == 0
    assert f"{prefix}  " in (told := capsys.readouterr().out)
    assert "of 2.0 MB" in told
    assert main(["file", "buckets", f"--url={url}", "--json"]) == 0
    assert f'"name":"{prefix}"' in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["file", "destroy", prefix, f"--url={url}"]) != 0
    assert main(["file", "destroy", prefix, "--yes", f"--url={url}"]) == 0
    assert main(["file", "destroy", prefix, "--yes", f"--url={url}"]) == 1
    assert "there is no file store" in capsys.readouterr().err
