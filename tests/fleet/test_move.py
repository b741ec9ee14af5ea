"""From a directory of certificates to a fleet: agents keep running, and nothing that was sent is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.commands import FAST
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.certs import CertificateAuthority, server_config
from lightlink.commands import Agent, CommandManager
from lightlink.errors import FleetError
from lightlink.fleet import FleetDirectory, Responder, enroll, fleet_config
from lightlink.fleet.admin import Fleet
from lightlink.fleet.move import move_store
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path


def test_agents_go_on_and_nothing_is_lost(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "certs")
    authority.issue_server(["127.0.0.1"])
    for name, role in (("ops", "admin"), ("manager", "manager"), ("here", "agent"), ("away", "agent")):
        authority.issue(name, role)
    certs, store = authority.directory, tmp_path / "store"

    def agent(name: str) -> Agent:
        made = Agent(name, server.url, tls=tls_of(certs, name), store=FAST, connect_timeout=1.0, wait=30)
        made.register("double", lambda x: 2 * x)
        return made

    with EmbeddedServer(config=server_config(certs, store_dir=None), store_dir=store) as server:
        port = server.port
        here = agent("here")
        with lightlink.connect(server.url, tls=tls_of(certs, "manager")) as client:
            manager = CommandManager(client, store=FAST)
            here.start(timeout=30)
            done = manager.send("here", "double", {"x": 4})
            assert done.result(30) == 8
            waiting = manager.send("away", "double", {"x": 21}, timeout=600)
            manager.close()

    fleet = tmp_path / "fleet"
    FleetDirectory.create(fleet, ["127.0.0.1"], certs=certs)
    move_store(fleet, store)
    config = fleet_config(fleet, store_dir=None, accounts_dir=tmp_path / "accounts")
    with (
        EmbeddedServer(config=config, store_dir=store, port=port) as server,
        Responder(fleet, server.url),
        lightlink.connect(server.url, tls=tls_of(certs, "manager")) as client,
        CommandManager(client, store=FAST) as manager,
        lightlink.connect(server.url.replace("nats", "tls"), tls=tls_of(certs, "ops")) as ops,
    ):
        # The same process, with the same certificate.
        eventually(lambda: here.client.status is lightlink.Status.CONNECTED)
        assert manager.get(done.command_id).status == "completed"
        assert manager.send("here", "double", {"x": 5}).result(30) == 10
        with agent("away"):
            assert manager.promise(waiting.command_id).result(30) == 42
        # And new ones enroll beside those that were there.
        files = enroll(Fleet(ops).token("new"), tmp_path / "new")
        with lightlink.connect(files.urls, tls=files.tls) as new:
            assert new.status is lightlink.Status.CONNECTED
        here.stop()


def test_a_store_is_moved_once_and_only_if_there_is_one(tmp_path: Path) -> None:
    FleetDirectory.create(tmp_path / "fleet", ["127.0.0.1"])
    with pytest.raises(FleetError, match="there is no"):
        move_store(tmp_path / "fleet", tmp_path / "store")
    (tmp_path / "store" / "jetstream" / "LIGHTLINK").mkdir(parents=True)
    move_store(tmp_path / "fleet", tmp_path / "store")
    with pytest.raises(FleetError, match="is there already"):
        move_store(tmp_path / "fleet", tmp_path / "store")
