"""What the frameworks share: a client and a manager that are made when they are first used, in each process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from lightlink.client import Client
from lightlink.commands.manager.manager import CommandManager
from lightlink.commands.processes import Managers
from lightlink.options import TLS, ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def read_options(
    url: str | Sequence[str] | None, tls: Mapping[str, Any], options: Mapping[str, Any], name: str
) -> ConnectOptions:
    """Return the options of a connection from a framework's settings; raises InvalidOption.

    What is not set is looked for in the environment, as `lightlink.connect` does. ``tls`` are the arguments of `TLS`;
    files that are None count as not given. The connection is lazy: nothing is connected before it is used.
    """
    files = {name: value for name, value in tls.items() if value is not None}
    given = {"name": name, **({"tls": TLS(**files)} if files else {}), **options, "lazy": True}
    return ConnectOptions.resolve(url, **given)


class Link:
    """A client and a manager, each made at its first use.

    A forked child has a connection and a manager of its own. Safe to share between threads.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self.options = attrs.evolve(options, lazy=True)
        self._clients: dict[str, Client] = {}
        self._managers = Managers(lambda: CommandManager(self.client))

    @property
    def client(self) -> Client:
        """The client of this process; it connects when it is used."""
        # Without a lock, which a fork might copy while it is taken: a client that is lazy costs nothing until it is
        # used, so of threads that come at the same time all but one may throw theirs away.
        return self._clients.get("client") or self._clients.setdefault("client", Client(self.options))

    @property
    def manager(self) -> CommandManager:
        """The manager of this process, which is connected; raises ConnectError, StoreUnavailable."""
        return self._managers.get()

    def close(self, timeout: float = 5.0) -> None:
        """Close what this process has opened, within ``timeout`` seconds; the next use opens it anew."""
        self._managers.close()
        client = self._clients.pop("client", None)
        if client is not None:
            client.close(timeout)

    def __repr__(self) -> str:
        return f"<Link {self.options.name!r} {','.join(self.options.servers)}>"
