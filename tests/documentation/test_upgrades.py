"""What docs/operations.md says of upgrades: what a release has left on a server is read by the ones after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from documentation import record
from helpers.raw import RawPeer

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RELEASES = sorted(record.FOLDER.glob("left_by_*.json"))


def as_it_was(payload: bytes) -> bytes:
    """Return what the release has written."""
    return payload


def by_a_later_one(payload: bytes) -> bytes:
    """Return what a release after this one may write: the same, and a field that nobody here knows."""
    try:
        value = json.loads(payload)
    except ValueError:
        return payload
    return json.dumps({**value, "from_a_later_release": {"x": [1]}}).encode() if isinstance(value, dict) else payload


@pytest.fixture(params=[as_it_was, by_a_later_one], ids=lambda change: change.__name__)
def change(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=RELEASES, ids=lambda path: path.stem)
def left(request: pytest.FixtureRequest, change: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with what a release has left, and the ids of it."""
    known = json.loads(request.param.read_text())
    with lightlink.EmbeddedServer() as server:
        with RawPeer(server.url) as peer:
            record.put_back(peer, known["streams"], change)
        yield server.url, known["ids"]


def test_what_a_release_has_left_is_read_and_carried_on(left: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    url, ids = left
    with lightlink.connect(url, name="web") as client, lightlink.CommandManager(client) as manager:
        assert {"t": 21.5, "unit": "C"}.items() <= client.get_state("device.sensor01").items()
        assert client.get_state("plain") == ["ü", 1, None]
        client.download(ids["file"], tmp_path / "copy.csv")
        assert (tmp_path / "copy.csv").read_text() == "apple,3\n"
        ends = {name: manager.get(ids[name]) for name in ("done", "broken", "cancelled", "waits")}
        assert {name: (each.status, each.status_detail) for name, each in ends.items()} == {
            "done": ("completed", ""),
            "broken": ("failed", ""),
            "cancelled": ("failed", "cancelled"),
            "waits": ("pending", ""),
        }
        assert ends["done"].result == {"waited": 5}
        assert "division by zero" in str(ends["broken"].error)
        assert len(manager.list("pump")) == 4
        # What waits is done by an agent of this version, for one that was sent by the other.
        agent = lightlink.Agent("pump", client)
        agent.register("restart", lambda delay: {"waited": delay})
        with agent:
            assert manager.send("pump", "restart", {"delay": 8}).result(30) == {"waited": 8}
            assert manager.promise(ids["waits"]).result(30) == {"waited": 7}


def test_the_present_release_is_among_them() -> None:
    assert [path.stem for path in RELEASES if path.stem == f"left_by_{lightlink.__version__}"]
