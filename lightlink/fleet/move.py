"""Take what a server of a certificate directory has stored along to a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightlink.certs.config import ACCOUNT
from lightlink.errors import FleetError
from lightlink.fleet.directory import ResponderFiles

if TYPE_CHECKING:
    import os


def move_store(directory: str | os.PathLike[str], store_dir: str | os.PathLike[str]) -> Path:
    """Give what JetStream has stored for LIGHTLINK to the account of that name in a fleet; return its new folder.

    nats-server keeps it under the account's name, which in operator mode is its public key. The server must be stopped.
    Raises FleetError when there is nothing to move, or the fleet has a store already.
    """
    stored = Path(store_dir).absolute() / "jetstream"
    old, new = stored / ACCOUNT, stored / ResponderFiles.load(directory).secrets().home.public
    if new.exists():
        raise FleetError("moving the store", f"{new} is there already")
    if not old.is_dir():
        raise FleetError("moving the store", f"there is no {old}")
    try:
        old.rename(new)
    except OSError as exc:
        raise FleetError("moving the store", f"{old} cannot be renamed: {exc.strerror}") from exc
    return new
