"""Many agents over real TLS, of which one is revoked while commands run: nobody else is disturbed.

Most of them are plain nats-py connections with an agent's certificate, account and subscriptions; a few are agents.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import nats
import pytest
from helpers.fleet import Sender
from helpers.loop import LoopThread
from helpers.pki import client_context, connect_to, is_refused
from helpers.waiting import eventually

from lightlink.protocol.permissions import inbox_prefix

if TYPE_CHECKING:
    from helpers.fleet import FleetWorld
    from nats.aio.client import Client

AT_ONCE = 50


class Crowd:
    """Plain connections of agents; ``lost`` names those that were ended."""

    def __init__(self, fleet: FleetWorld, names: list[str]) -> None:
        self._fleet = fleet
        self._names = names
        self._thread = LoopThread("crowd")
        self.clients: dict[str, Client] = {}
        self.lost: list[str] = []

    async def _connect(self, name: str) -> None:
        async def lost() -> None:
            self.lost.append(name)

        client = await nats.connect(
            self._fleet.url,
            tls=client_context(self._fleet.directory, name),
            inbox_prefix=inbox_prefix(name).encode(),
            allow_reconnect=False,
            connect_timeout=60,
            disconnected_cb=lost,
        )
        for subject in (f"ll.status.{name}.*", f"ll.messages.{name}", "ll.broadcast", f"{inbox_prefix(name)}.>"):
            await client.subscribe(subject)
        await client.flush(60)
        self.clients[name] = client

    async def _connect_all(self) -> None:
        for start in range(0, len(self._names), AT_ONCE):
            await asyncio.gather(*map(self._connect, self._names[start : start + AT_ONCE]))

    async def _close_all(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients.values()), return_exceptions=True)

    def __enter__(self) -> Crowd:
        self._thread.run(self._connect_all(), timeout=110)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._close_all(), timeout=60)
        self._thread.stop()


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_one_of_many_is_revoked_and_nobody_else_is_disturbed(fleet: FleetWorld, count: int) -> None:
    fleet.responder()
    names = [f"n{number:04d}" for number in range(count)]
    for name in names:
        fleet.authority.issue(name, "agent")
    for name in ("a", "b", "c"):
        fleet.authority.issue(name, "agent")
        fleet.agent(name)
    admin, victim = fleet.admin(), names[count // 2]
    with Crowd(fleet, names) as crowd, Sender(fleet.manager, "a", "b", "c") as sender:
        assert len(crowd.clients) == count
        admin.revoke(victim)
        eventually(lambda: crowd.lost)
        sender.goes_on()
        # One more comes, is let in and held to its name, as all the others are still there.
        fleet.authority.issue("late", "agent")
        with connect_to(fleet.server, fleet.directory, "late") as peer:
            assert is_refused(peer, "publish", f"ll.progress.{names[0]}.1")
            assert not is_refused(peer, "publish", "ll.progress.late.1")
        assert crowd.lost == [victim]
        assert [name for name, client in crowd.clients.items() if not client.is_connected] == [victim]
