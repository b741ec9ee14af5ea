"""The figures that a fleet is sized by (samples/sizing.py, docs/scaling.md) are those of a real server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink.connection.dialing.dial import Backoff
from lightlink.options import ConnectOptions
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from conftest import StartServer

COUNT = 50


@pytest.fixture(scope="module")
def sizing() -> Any:
    spec = importlib.util.spec_from_file_location("sizing", Path(__file__).parents[2] / "samples" / "sizing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_command_and_a_heartbeat_take_the_room_counted_with(sizing: Any, fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        manager, agent = world.manager(sweep_interval=None), world.agent("press-0815", labels={"site": "berlin"})
        agent.register("work", lambda x: {"ok": True})
        agent.start()
        assert manager.send_many(["press-0815"], "work", {"x": 1}, repeat=COUNT).wait(60)
        wanted = {
            subjects.COMMANDS_STREAM: (COUNT, sizing.REQUEST_BYTES),
            subjects.STATUS_STREAM: (COUNT * sizing.STATUSES, sizing.STATUS_BYTES),
            subjects.AUDIT_STREAM: (COUNT * (1 + sizing.STATUSES), sizing.AUDIT_BYTES),
            subjects.AGENTS_STREAM: (1, sizing.HEARTBEAT_BYTES),
        }
        for stream, (messages, size) in wanted.items():
            state = eventually(lambda stream=stream, messages=messages: _holds(manager, stream, messages))
            assert state.bytes / state.messages == pytest.approx(size, rel=0.25), stream
        agent.stop()


def _holds(manager: Any, stream: str, messages: int) -> Any:
    info = manager.store.stream_info(stream, "measuring")
    return info.state if info is not None and info.state.messages == messages else None


def test_sizes_grow_with_the_fleet(sizing: Any) -> None:
    small, large = (sizing.sizing(count, 20, 10, 7, 30) for count in (1_000, 100_000))
    assert small["heartbeats a second"] == 100
    for what, amount in small.items():
        assert large[what] == pytest.approx(100 * amount), what


def test_waits_are_those_of_the_connection(sizing: Any) -> None:
    options = ConnectOptions(servers=["nats://127.0.0.1:4222"], reconnect_wait=0.1, reconnect_wait_max=4.0)
    for _ in range(100):
        backoff, at = Backoff(options), 0.0
        while at < 60.0:
            at += backoff.next()
        assert at < 64.0
    back = sizing.returns(1000, 60.0, 0.1, 4.0)
    assert sum(back.values()) == 1000
    assert max(back) < 4


def test_a_longer_wait_spreads_those_who_come_back(sizing: Any) -> None:
    hasty, patient = (max(sizing.returns(5_000, 600.0, 0.1, most).values()) for most in (4.0, 120.0))
    assert hasty > 1_000
    assert patient < 150
