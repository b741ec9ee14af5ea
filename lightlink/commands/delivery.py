"""Fetch an agent's commands ahead from its durable consumer, and keep hold of them until they are settled (ADR-37)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import attrs

from lightlink import codec
from lightlink.commands import schema
from lightlink.commands.model import RequestRecord
from lightlink.errors import ClosedError, DecodeError, LightLinkError
from lightlink.runtime import jetstream
from lightlink.runtime.session import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.runtime.connection import Connection

_log = logging.getLogger("lightlink")

_PULL_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_ACK, _NAK, _IN_PROGRESS = b"+ACK", b"-NAK", b"+WPI"


@attrs.define(eq=False)
class Delivery:
    """A command that the server has handed to this agent; ``reply`` is where its acknowledgement goes."""

    request: RequestRecord
    reply: bytes
    sequence: int


class Deliveries:
    """Pulls up to ``prefetch`` commands ahead and calls ``on_delivery`` for each, on the notifier's thread.

    What is held is kept from being delivered again, until `ack` or `hand_back`. `tick` is to be called about every
    second: it renews what has run out.
    """

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        prefetch: int,
        ack_wait: float,
        on_delivery: Callable[[Delivery], object],
    ) -> None:
        self._connection = connection
        self._subject = (
            f"{jetstream.API}.CONSUMER.MSG.NEXT.{schema.REQUESTS}.{schema.consumer_name(client_id)}".encode()
        )
        self._prefetch = prefetch
        self._renew_every = ack_wait / 3
        self._on_delivery = on_delivery
        self._held: dict[str, Delivery] = {}
        self._renewed = time.monotonic()
        self._outstanding = 0  # how many messages the pull under way may still bring
        self._pull_expires = 0.0
        self._stopped = False
        prefix = connection.options.inbox_prefix or "_INBOX"
        self._inbox = f"{prefix}.{codec.new_id().replace('-', '')}"

    def start(self) -> None:
        """Subscribe and begin to pull."""
        self._route = self._connection.subscribe(self._inbox, "", self._arrive)
        self._connection.on_status(self._on_status)
        self._pull()

    def stop(self, timeout: float) -> None:
        """Pull no more."""
        self._stopped = True
        session = self._connection.session
        try:
            session.run(session.nc.unroute, self._route, timeout=timeout)
        except (TimeoutError, ClosedError) as exc:
            _log.debug("lightlink: unsubscribing from %s: %r", self._inbox, exc)

    def __len__(self) -> int:
        return len(self._held)

    def ack(self, delivery: Delivery) -> None:
        """Tell the server that a command has ended."""
        self._let_go(delivery, _ACK)

    def hand_back(self, delivery: Delivery) -> None:
        """Give a command that was not begun back to the stream."""
        self._let_go(delivery, _NAK)

    def forget(self, delivery: Delivery) -> None:
        """Let a command go without a word: the server delivers it again later."""
        self._held.pop(delivery.request.command_id, None)

    def tick(self) -> None:
        """Keep what is held alive, and pull again if the last pull brought nothing in its time."""
        instant = time.monotonic()
        if instant - self._renewed >= self._renew_every:
            self._renewed = instant
            for delivery in list(self._held.values()):
                self._connection.publish(delivery.reply, _IN_PROGRESS)
        if instant > self._pull_expires:
            self._outstanding = 0
        self._pull()

    def _let_go(self, delivery: Delivery, word: bytes) -> None:
        self._held.pop(delivery.request.command_id, None)
        try:
            self._connection.publish(delivery.reply, word)
        except LightLinkError as exc:
            # The command is delivered again, and its status says that there is nothing left to do.
            _log.warning("lightlink: command %s was not acknowledged: %s", delivery.request.command_id, exc)
        self._pull()

    def _pull(self) -> None:
        room = self._prefetch - len(self._held)
        if self._stopped or self._outstanding > 0 or room <= 0 or self._connection.status is not Status.CONNECTED:
            return
        self._outstanding = room
        self._pull_expires = time.monotonic() + _PULL_SECONDS + 1
        body = {"batch": room, "expires": jetstream.nanoseconds(_PULL_SECONDS)}
        try:
            self._connection.publish(self._subject, codec.encode_json(body), self._inbox.encode())
        except LightLinkError as exc:
            self._outstanding = 0
            _log.warning("lightlink: commands could not be fetched: %s", exc)

    def _arrive(self, _subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._connection.session.notifier.post(self._take, reply, data, headers)

    def _take(self, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if headers is not None and headers.startswith(b"NATS/1.0 "):
            self._end_of_pull(codec.decode_headers(headers))
            return
        self._outstanding -= 1
        try:
            delivery = self._read(reply, data)
        except (DecodeError, ValueError) as exc:
            # Only a stranger to the wire format writes such a request; nobody could ever run it.
            self._connection.report(exc)
            self._connection.publish(reply, b"+TERM")
            return
        known = self._held.get(delivery.request.command_id)
        if known is not None:
            known.reply = delivery.reply  # delivered again while held: only the newest acknowledgement counts
            return
        self._held[delivery.request.command_id] = delivery
        self._on_delivery(delivery)
        self._pull()

    def _read(self, reply: bytes, data: bytes) -> Delivery:
        request = codec.decode(data, reply.decode(), RequestRecord)
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>..., or with domain and account before the stream.
        tokens = reply.split(b".")
        return Delivery(request, reply, int(tokens[5] if len(tokens) == 9 else tokens[7]))

    def _end_of_pull(self, status: dict[str, str]) -> None:
        code = status.get("Status")
        if code == "100":  # an idle heartbeat
            return
        self._outstanding = 0
        if code in ("404", "408"):
            self._pull()
            return
        # No consumer yet, or the server is choosing a new leader for it: the next tick but one asks again.
        self._outstanding = 1
        self._pull_expires = time.monotonic() + _RETRY_SECONDS

    def _on_status(self, status: Status) -> None:
        if status is Status.CONNECTED:
            self._outstanding = 0  # the server has forgotten the pull
            self._pull()
