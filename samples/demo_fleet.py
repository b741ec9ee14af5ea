"""A fleet in one program: agents enroll by token, one is revoked, one is moved, and Berlin gets a command.

Run it with `make demo-fleet`, or `python samples/demo_fleet.py`. Each step has its command line beside it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import lightlink
from lightlink.certs import CertificateAuthority
from lightlink.commands import Agent, CommandManager, StoreOptions
from lightlink.errors import AuthenticationError, FleetRefused
from lightlink.fleet import AgentFiles, Fleet, FleetDirectory, Responder, enroll, fleet_config
from lightlink.server import EmbeddedServer

CITIES = ["berlin", "berlin", "berlin", "berlin", "munich", "munich", "munich", "paris", "paris", "paris"]
STORE = StoreOptions(heartbeat=0.5)


def start(files: AgentFiles) -> Agent:
    """Start the agent of a machine that was enrolled; `lightlink agent run MODULE --enrolled DIR`."""
    agent = Agent(files.name, files.urls, tls=files.tls, labels=files.labels, store=STORE)
    agent.register("hello", lambda: f"hello from {files.name}")
    return agent.start()


def main() -> None:
    """Show the life of a fleet."""
    # What is refused on purpose below would be logged.
    logging.getLogger("lightlink").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # lightlink fleet init fleet/ --host 127.0.0.1
        FleetDirectory.create(folder / "fleet", ["127.0.0.1"])
        authority = CertificateAuthority.load(folder / "fleet")
        for name, role in (("ops", "admin"), ("manager", "manager")):
            authority.issue(name, role)
        config = fleet_config(folder / "fleet", store_dir=None, accounts_dir=folder / "accounts")
        # nats-server --config fleet/nats.conf; lightlink fleet auth fleet/ (twice)
        with (
            EmbeddedServer(config=config) as server,
            Responder(folder / "fleet", server.url),
            Responder(folder / "fleet", server.url),
        ):
            show(folder, server.url.replace("nats://", "tls://"))


def show(folder: Path, url: str) -> None:
    """Enroll, command, revoke and move agents."""

    def tls(name: str) -> lightlink.TLS:
        here = folder / "fleet"
        return lightlink.TLS(here / "ca.pem", here / f"{name}.pem", here / f"{name}.key")

    with (
        lightlink.connect(url, name="ops", tls=tls("ops")) as ops,
        lightlink.connect(url, name="manager", tls=tls("manager")) as client,
        CommandManager(client, store=STORE) as manager,
    ):
        fleet = Fleet(ops)
        agents = {}
        started = time.monotonic()
        for number, city in enumerate(CITIES):
            # lightlink fleet token a-0 --label site=berlin; on the machine: lightlink agent enroll TOKEN
            token = fleet.token(f"a-{number}", labels={"site": city})
            files = enroll(token, folder / f"a-{number}")
            agents[files.name] = start(files)
        print(f"{len(manager.agents(online=True))} agents enrolled and online in {time.monotonic() - started:.1f} s")
        try:
            enroll(token, folder / "thief")
        except FleetRefused as exc:
            print("the token again:", exc.reason)

        # lightlink fleet revoke a-3
        fleet.revoke("a-3", "stolen")
        try:
            lightlink.connect(url, tls=AgentFiles.load(folder / "a-3").tls)
        except AuthenticationError:
            print("a-3 is revoked and kept out")

        # lightlink fleet label a-4 site=berlin
        manager.assign_labels("a-4", {"site": "berlin"})
        # This one leaves; labels that were assigned reach it all the same.
        manager.assign_labels("a-0", {"site": "berlin"})
        agents["a-0"].stop()
        print("online in berlin:", [each.client_id for each in manager.agents({"site": "berlin"}, online=True)])

        # lightlink command batch hello --label site=berlin --offline
        batch = manager.send_many(None, "hello", labels={"site": "berlin"}, offline=True, timeout=60)
        print("a-0 is away, and its command waits")
        agents["a-0"] = start(AgentFiles.load(folder / "a-0"))
        print("berlin:", sorted(command.result for command in batch))
        # lightlink fleet audit
        print("audit:", {what: sum(each.what == what for each in fleet.audit()) for what in ("enrolled", "revoked")})
        for agent in agents.values():
            agent.stop()


if __name__ == "__main__":
    main()
