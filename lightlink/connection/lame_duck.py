"""Leave a server that says it is about to shut down (lame duck mode), for another and at a moment when nothing is lost.

Left to itself, such a server cuts its clients off one by one, some time later, whatever is under way.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.dialing.dial import Backoff
    from lightlink.connection.nats_client import WireClient
    from lightlink.connection.pump import Pump
    from lightlink.connection.replies import ReplyMap

_log = logging.getLogger("lightlink")

# How long new messages are held back in the hope that all replies come in, in seconds, before they flow again for a
# while. After the last the wait is over: in its default configuration the server begins to cut off after ten seconds.
_HOLDS = (0.25, 0.5, 1.0, 2.0)
_FLOW = 0.5
_LOOK = 0.005


class Mover:
    """Moves a connection away from its server, once at a time. ``losses`` counts how often the connection was lost."""

    def __init__(self, pump: Pump, replies: ReplyMap, backoff: Backoff, losses: Callable[[], int]) -> None:
        self._pump = pump
        self._replies = replies
        self._backoff = backoff
        self._losses = losses
        self._task: asyncio.Task[None] | None = None

    def begin(self, nc: WireClient, reason: str) -> None:
        """Begin to move, unless that is under way or there is no other server; on the loop's thread."""
        if len(nc.servers) < 2 or (self._task is not None and not self._task.done()):
            return
        _log.info("lightlink: %s; moving away from %s", reason, nc.server)
        self._task = asyncio.ensure_future(self._move(nc, self._losses()))

    async def _move(self, nc: WireClient, losses: int) -> None:
        """Hold back what is new until every reply is in; then go, or go on for a while if that takes too long."""
        for hold in _HOLDS:
            self._pump.hold()
            settled = await self._await_replies(hold)
            if self._losses() != losses:
                return  # it was cut off, and reconnecting sees to the rest
            if settled:
                break
            if hold != _HOLDS[-1]:
                self._pump.release()
                await asyncio.sleep(_FLOW)
                if self._losses() != losses:
                    return
        self._backoff.avoid(nc.server)
        await nc.leave(keep=self._replies.prefix.decode())

    async def _await_replies(self, limit: float) -> bool:
        deadline = asyncio.get_running_loop().time() + limit
        while self._replies.outstanding:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(_LOOK)
        return True
