"""nats-py's client with two seams: messages are delivered without a queue or task, and batches are written at once.

What is kept from nats-py: connecting, TLS, authentication, the protocol parser, reconnecting, replaying subscriptions
and JetStream management. The only module that touches its private parts; tests/test_wire.py watches over each of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client as NatsClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.subscription import Subscription

    # (subject, reply subject, payload, header block), called on the loop's thread; must not block.
    Sink = Callable[[bytes, bytes, bytes, bytes | None], None]

_log = logging.getLogger("lightlink")

# Above this many bytes not yet taken by the kernel, writing pauses until the socket has caught up.
_CONGESTED_BYTES = 256 * 1024


class TLSRequired(nats.errors.Error):
    """The server does not offer TLS, and without it nothing may be said to it."""

    def __str__(self) -> str:
        return "the server does not offer TLS"


def publish_frame(subject: bytes, reply: bytes, payload: bytes, headers: bytes | None = None) -> bytes:
    """Return the protocol bytes that publish one message (PUB or HPUB)."""
    if headers is None:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    size = len(headers)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(payload), headers, payload)


class WireClient(NatsClient):
    """A nats-py client whose subscriptions made with `route` deliver straight from the parser.

    ``require_tls`` refuses a server that does not offer TLS before any credential is sent.
    ``on_denied`` is called with the operation and the subject when the server's permissions refuse one.
    """

    def __init__(self, *, require_tls: bool, on_denied: Callable[[str, str], None]) -> None:
        super().__init__()
        self._require_tls = require_tls
        self._on_denied = on_denied
        self._sinks: dict[int, Sink] = {}

    async def route(self, subject: str, queue: str, sink: Sink) -> Subscription:
        """Subscribe, with each message given to ``sink`` on the loop's thread as it is parsed."""
        sid = self._sid + 1
        self._sinks[sid] = sink
        try:
            return await self.subscribe(subject, queue=queue)
        except BaseException:
            del self._sinks[sid]
            raise

    async def unroute(self, subscription: Subscription) -> None:
        """End a subscription made with `route`; without effect when it has ended."""
        self._sinks.pop(subscription._id, None)
        if subscription._id in self._subs and not self.is_closed:
            await subscription.unsubscribe()

    async def stop_route(self, subscription: Subscription) -> None:
        """Tell the server to send no more, and return once all it had sent has been delivered."""
        if subscription._id in self._subs and not self.is_closed:
            await self._send_unsubscribe(subscription._id)
            if self.is_connected:
                await self.flush()

    def write(self, frames: Sequence[bytes]) -> None:
        """Write protocol bytes to the socket. Only to be called while connected."""
        assert self._transport is not None
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    @property
    def is_congested(self) -> bool:
        """Whether the socket takes less than is written to it."""
        return bool(self._transport._io_writer.transport.get_write_buffer_size() > _CONGESTED_BYTES)

    async def wait_decongested(self) -> None:
        """Return when the socket has caught up; raises OSError when the connection is lost."""
        await self._transport.drain()

    def stay_connected(self) -> None:
        """From now on reconnect whenever the connection is lost, for ever."""
        self.options["allow_reconnect"] = True
        self.options["max_reconnect_attempts"] = -1

    def abandon(self) -> None:
        """Let go, in a forked child, of the parent's socket, without a word to the server.

        The descriptor is pointed at the null device: its owner (asyncio or uvloop) may close it later, and a copy held
        open here would keep the server from seeing the parent's end.
        """
        try:
            inherited = self._transport._io_writer.transport.get_extra_info("socket").fileno()
        except AttributeError:  # it was not connected
            return
        if inherited >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, inherited)
            os.close(null)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        sink = self._sinks.get(sid)
        if sink is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            sink(subject, reply, data, headers)
        except Exception:
            # An exception here would end nats-py's read loop, and with it the connection.
            _log.exception("lightlink: a message on %r could not be delivered", subject)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._require_tls and not info.get("tls_required"):
            raise TLSRequired
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        message = self._as_the_server_wrote_it(err_msg)
        denied = _denied_operation(message)
        if denied is not None:
            self._on_denied(*denied)
            return
        # nats-py would close for good here. The server is about to hang up, and a reconnect heals most of its reasons;
        # a refusal that does not heal is recognised when the reconnect is refused too.
        error = nats.errors.Error(f"nats: {message}")
        await self._error_cb(error)
        await self._process_op_err(error)

    def _as_the_server_wrote_it(self, lowered: str) -> str:
        """Return an error's text with its capitals: nats-py lowers them, subjects included."""
        line = bytes(self._ps.buf).partition(b"\r\n")[0].decode("utf-8", "replace")
        start = line.lower().find(lowered)
        return line[start : start + len(lowered)] if start >= 0 else lowered

    async def _attempt_reconnect(self) -> None:
        # nats-py's own loop ends for good at an error of a type it does not expect, say from a server that speaks HTTP.
        while not self.is_closed:
            try:
                await super()._attempt_reconnect()
                return
            except Exception as exc:
                _log.debug("lightlink: reconnecting failed: %r", exc)
                await asyncio.sleep(self.options["reconnect_time_wait"])


def _denied_operation(message: str) -> tuple[str, str] | None:
    """Return (publish or subscribe, subject) from the text of a permissions violation, None from another."""
    if "permissions violation" not in message.lower():
        return None
    operation = "subscribe" if "for subscription" in message.lower() else "publish"
    _, _, rest = message.partition('"')
    return operation, rest.partition('"')[0]
