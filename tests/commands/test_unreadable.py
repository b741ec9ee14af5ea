"""One request that cannot be read is shown as such, and hides no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lightlink.commands import model
from lightlink.errors import CommandFailed
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from helpers.commands import World
    from helpers.raw import RawPeer

    from lightlink.commands import CommandManager

# Not JSON that Python holds, not UTF-8, not an object, without its fields.
PAYLOADS = [b'{"a":1e999}', b'{"a":"\xff"}']
REQUESTS = [b"garbage", b"{}", b"[]", b"", b"\xff\xfe", b"[" * 5000 + b"]" * 5000]


def stored(peer: RawPeer, client_id: str, command_id: str, payload: bytes) -> None:
    body = b'{"command_id":"%b","client_id":"%b","command_type":"add","timeout":600,"created_at":"%b","payload":%b}'
    instant = model.now().isoformat().encode()
    data = body % (command_id.encode(), client_id.encode(), instant, payload)
    peer.run(peer.nc.jetstream().publish(subjects.command_request(client_id, command_id), data))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_that_cannot_be_read_hides_nothing(
    world: World, manager: CommandManager, peer: RawPeer, prefix: str, payload: bytes
) -> None:
    good = manager.send(prefix, "add", {"x": 1})
    bad = new_id()
    stored(peer, prefix, bad, payload)
    listed = {command.command_id: command for command in manager.list(prefix)}
    assert listed.keys() == {good.command_id, bad}
    assert listed[bad].status_detail == manager.get(bad).status_detail == "unreadable"
    assert listed[bad].payload is None
    assert "cannot be read" in listed[bad].error
    promise = manager.promise(bad)
    assert promise.command().status_detail == "unreadable"
    agent = world.agent(prefix)
    agent.command("add")(lambda x: x)
    agent.start()
    assert good.result(30) == 1
    with pytest.raises(CommandFailed):
        promise.result(30)


@pytest.mark.parametrize("request_body", REQUESTS)
def test_a_request_that_is_none_is_listed_alone(
    manager: CommandManager, peer: RawPeer, prefix: str, request_body: bytes
) -> None:
    good = manager.send(prefix, "add", {"x": 1})
    bad = new_id()
    peer.run(peer.nc.jetstream().publish(subjects.command_request(prefix, bad), request_body))
    assert [command.command_id for command in manager.list(prefix)] == [bad, good.command_id]
    shown = manager.get(bad)
    assert (shown.status, shown.status_detail, shown.client_id) == ("failed", "unreadable", prefix)
    assert [command.command_id for command in manager.list(prefix, "failed")] == [bad]
    assert [command.command_id for command in manager.list(prefix, "pending")] == [good.command_id]
    assert [command.command_id for command in manager.list(prefix, limit=1)] == [bad]
