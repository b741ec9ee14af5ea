"""Many agents over real TLS, of which one is revoked while commands run: nobody else is disturbed.

Most of them are plain nats-py connections with an agent's certificate, account and subscriptions; a few are agents.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import nats
import pytest
from helpers.fleet import Sender
from helpers.loop import LoopThread
from helpers.pki import client_context, connect_to, is_refused
from helpers.waiting import eventually

import lightlink
from lightlink.fleet import enroll, renew
from lightlink.protocol.permissions import inbox_prefix

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.fleet import FleetWorld
    from nats.aio.client import Client

    from lightlink.fleet import AgentFiles

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


def _enroll(token: str, folder: Path) -> AgentFiles | None:
    """Enroll; None where the server, which so many come to at once, did not get to it in time."""
    try:
        return enroll(token, folder)
    except lightlink.ConnectError:
        return None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_enroll_and_renew_and_nobody_is_disturbed(fleet: FleetWorld, tmp_path: Path) -> None:
    fleet.responder()
    admin, names = fleet.admin(), [f"m{number:04d}" for number in range(1000)]
    for name in ("a", "b", "c"):
        fleet.authority.issue(name, "agent")
        fleet.agent(name)

    def take_part(name: str) -> AgentFiles:
        token = admin.token(name, labels={"site": name[:3]})
        files = eventually(lambda: _enroll(token, tmp_path / name), 60)
        options: dict[str, Any] = {"tls": files.tls, "name": name, "timeout": 60, "wait": 60}
        with lightlink.connect(fleet.url, **options) as client:
            renew(client, files)
        with lightlink.connect(fleet.url, **options) as client:
            client.flush(60)
        return files

    with Sender(fleet.manager, "a", "b", "c") as sender, ThreadPoolExecutor(4) as pool:
        files = list(pool.map(take_part, names))
        sender.goes_on()
        victim = files[500]
        admin.revoke(victim.name)
        with pytest.raises(lightlink.AuthenticationError):
            lightlink.connect(fleet.url, tls=victim.tls, name=victim.name)
        lightlink.connect(fleet.url, tls=files[501].tls, name=files[501].name).close()
        sender.goes_on()
    known = {each.name: each for each in admin.identities() if each.name in names}
    assert known.keys() == {*names}
    assert all(each.enrolled_at and each.renewed_at and not each.previous for each in known.values())
    assert [each.name for each in known.values() if each.revoked] == [victim.name]
    entries = Counter(entry.what for entry in admin.audit(10_000))
    assert (entries["token"], entries["enrolled"], entries["renewed"], entries["revoked"]) == (1000, 1000, 1000, 1)


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
