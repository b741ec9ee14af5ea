"""Write the nats-server configuration of a fleet: operator mode, a full resolver, auth callout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lightlink.certs.syntax import assignments, block, quoted
from lightlink.fleet import accounts, jwt
from lightlink.fleet.directory import FleetDirectory, ResponderFiles
from lightlink.protocol.text import joined
from lightlink.validators import integer

if TYPE_CHECKING:
    from lightlink.fleet.directory import Secrets

MEBIBYTE = 1024 * 1024
# Above the clients' connect_timeout: while responders are away it is the client that gives up and tries again, and not
# the server that refuses it.
AUTH_SECONDS = 10

_HEADER = """\
# nats-server configuration of a LightLink fleet, made by `lightlink fleet server-config`; do not edit it.
# It does not change with the fleet: who may do what is decided by `lightlink fleet auth` as agents connect.
"""


def fleet_config(
    directory: str | os.PathLike[str],
    *,
    host: str = "0.0.0.0",  # noqa: S104 - who may do what is decided by certificate
    port: int = 4222,
    store_dir: str | os.PathLike[str] | None = "jetstream",
    accounts_dir: str | os.PathLike[str] = "accounts",
    max_payload: int = MEBIBYTE,
    max_connections: int = 65_536,
    max_memory: int = 256 * MEBIBYTE,
    max_disk: int = 10 * 1024 * MEBIBYTE,
) -> str:
    """Return a complete configuration for a server of the fleet in a directory.

    ``port`` -1 takes any free one. ``store_dir`` holds JetStream's data (None: the command line says where),
    ``accounts_dir`` the agents' accounts; sizes are in bytes. Servers of a cluster have all but ports and folders in
    common. Raises InvalidOption.
    """
    for option, value in (
        ("max_payload", max_payload),
        ("max_connections", max_connections),
        ("max_memory", max_memory),
        ("max_disk", max_disk),
    ):
        integer(option, value)
    fleet = FleetDirectory.load(directory)
    secrets = ResponderFiles.load(fleet.path).secrets()
    stores: dict[str, int | str] = {"max_memory_store": max_memory, "max_file_store": max_disk}
    stores |= {} if store_dir is None else {"store_dir": os.fspath(store_dir)}
    lines = [f"listen: {quoted(joined(host, port))}"]
    lines += assignments({"max_payload": max_payload, "max_connections": max_connections})
    lines += block("jetstream", assignments(stores))
    lines += block("tls", assignments(_tls(fleet)))
    lines += block("authorization", [f"timeout: {AUTH_SECONDS}"])
    lines += _trust(secrets, Path(accounts_dir))
    return _HEADER + "\n".join(lines) + "\n"


def _tls(fleet: FleetDirectory) -> dict[str, str | int | bool]:
    authorities = fleet.path / "authorities.pem"
    return {
        "cert_file": str(fleet.path / "server.pem"),
        "key_file": str(fleet.path / "server.key"),
        "ca_file": str(authorities if authorities.exists() else fleet.path / "ca.pem"),
        "verify": True,
        "min_version": "1.2",
        "timeout": 5,
    }


def _trust(secrets: Secrets, accounts_dir: Path) -> list[str]:
    """Return whose accounts and users count, and the accounts that are there before the first agent is."""
    resolver = {"type": "full", "dir": str(accounts_dir), "allow_delete": True, "interval": "2m", "limit": 1_000_000}
    system, auth, home, enroll = (secrets.system, secrets.auth, secrets.home, secrets.enroll)
    preload = {
        system.public: jwt.account(system.public, "SYS", secrets.signing),
        auth.public: jwt.account(
            auth.public, "AUTH", secrets.signing, jetstream=True, **accounts.auth_claims(secrets.responder.public)
        ),
        home.public: jwt.account(
            home.public, "LIGHTLINK", secrets.signing, jetstream=True, **accounts.home_claims(auth.public)
        ),
        enroll.public: jwt.account(enroll.public, "ENROLL", secrets.signing, **accounts.enroll_claims(auth.public)),
    }
    return [
        f"operator: {secrets.operator}",
        f"system_account: {system.public}",
        f"default_sentinel: {jwt.sentinel(secrets.sentinel.public, auth)}",
        *block("resolver", assignments(resolver)),
        *block("resolver_preload", [f"{public}: {token}" for public, token in preload.items()]),
    ]
