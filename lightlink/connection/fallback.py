"""Come back to a gateway: a connection that fell back to TCP, where UDP was blocked, moves when it no longer is."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.lame_duck import Mover
    from lightlink.connection.nats_client import WireClient
    from lightlink.connection.transports.base import Transport
    from lightlink.options import ConnectOptions

_log = logging.getLogger("lightlink")

# Between two tries, at first and at the most, and for one try, in seconds.
FIRST_WAIT, MOST_WAIT = 30.0, 600.0
_TRY = 3.0
_BUFFER = 32 * 1024


class GatewayWatch:
    """Tries the gateways among the servers while another is connected."""

    def __init__(self, options: ConnectOptions, mover: Mover, make_transport: Callable[[str], Transport]) -> None:
        self._gateways = [urlparse(server) for server in options.servers if server.startswith("quic://")]
        self._mover = mover
        self._make_transport = make_transport
        self._task: asyncio.Task[None] | None = None

    def begin(self, nc: WireClient) -> None:
        """Begin to watch, if there is a gateway to come back to; called whenever a connection was made."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._gateways and not nc.server.startswith("quic://"):
            _log.warning("lightlink: no gateway could be reached over UDP; connected to %s instead", nc.server)
            self._task = asyncio.ensure_future(self._watch(nc))

    async def _watch(self, nc: WireClient) -> None:
        wait = FIRST_WAIT
        while True:
            await asyncio.sleep(wait)
            if not nc.is_connected:
                return  # whatever it is connected to next is looked at then
            if await self._is_answered():
                self._mover.begin(nc, "a gateway can be reached over UDP again")
                return
            wait = min(2 * wait, MOST_WAIT)

    async def _is_answered(self) -> bool:
        transport = self._make_transport("quic")
        try:
            for gateway in self._gateways:
                try:
                    await transport.connect(gateway, _BUFFER, _TRY)
                except (OSError, asyncio.TimeoutError) as exc:
                    _log.debug("lightlink: %s: %s", gateway.geturl(), exc)
                else:
                    return True
        finally:
            transport.abort()
        return False
