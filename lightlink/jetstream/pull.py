"""Pull messages from a durable consumer ahead of their handling, and hold them until they are settled (ADR-37)."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.threads import RLock
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError
from lightlink.jetstream import api
from lightlink.jetstream.cursor import Delivery, read_delivery
from lightlink.protocol import codec
from lightlink.protocol.ids import new_inbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.connection import Connection

_log = logging.getLogger("lightlink")

_PULL_SECONDS = 30.0
# Until the server has answered once, a pull is short: where the consumer is not there yet, nothing at all may be heard.
_FIRST_PULL_SECONDS = 1.0
_RETRY_SECONDS = 1.0
# So often the server says that a pull is still known to it; one it says nothing of for two of them is lost. At the most
# half a pull, as the server demands.
LEAST_HEARTBEAT, MOST_HEARTBEAT = 5.0, _PULL_SECONDS / 2
# What the server says to a pull that asks for more than the consumer allows, which not everybody may look up.
_MOST_AT_ONCE = re.compile(r"MaxRequestBatch of ([1-9]\d{0,8})")
_ACK, _NAK, _TERM, _IN_PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"


@attrs.define(eq=False)
class Pulled:
    """A message that the server has handed over.

    ``reply`` is where its newest acknowledgement goes, ``attempt`` how often the server has delivered it, this time
    included: after an outage again to who holds it.
    """

    message: Delivery
    reply: bytes
    attempt: int = 1

    @property
    def first(self) -> int:
        """How often the server had delivered it when it came here, that time included."""
        return self.message.deliveries


class PullConsumer:
    """Fetches up to ``most`` messages ahead and calls ``on_messages`` with those that came together.

    The calls come on threads of the library, mostly the loop's, and must not block: one for what one read brought, or
    with ``whole`` one for what a pull brought, for who puts it in an order of its own. What is held is kept from being
    delivered again until `ack`, `hand_back`, `end` or `forget`. `tick` is to be called about every second, and at least
    every third of ``ack_wait``: it renews what has run out. ``on_missing`` is called when there is no consumer. A pull
    that the server has forgotten, as with a leader that was killed, is noticed after twice ``heartbeat`` seconds.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        most: int,
        ack_wait: float,
        on_messages: Callable[[list[Pulled]], object],
        on_missing: Callable[[], object],
        *,
        whole: bool = False,
        heartbeat: float = LEAST_HEARTBEAT,
    ) -> None:
        self._connection = connection
        self._subject = api.api_subject(connection, f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._what = f"{stream} as {consumer}"
        self._room = most
        self._most = 0  # how many a pull may ask for, where that is known
        self._renew_every = ack_wait / 3
        self._on_messages = on_messages
        self._on_missing = on_missing
        self._whole = whole
        self._heartbeat = heartbeat
        self._lock = RLock()
        self._held: dict[int, Pulled] = {}  # by place
        self._burst: list[Pulled] = []
        self._renewed = time.monotonic()
        # The pull under way: its number, how many messages it may still bring, and until when.
        self._number = 0
        self._owed = 0
        self._expires = 0.0
        self._heard = 0.0  # when the server last said anything
        self._answered = False
        self._is_beating = False
        self._stopped = False
        self._has_left = False
        self._forget_status: Callable[[], None] = lambda: None
        self._routes: list[Any] = []  # one, once it was started
        self._inbox = new_inbox(connection.options.inbox_prefix)

    def start(self) -> None:
        """Subscribe and begin to fetch."""
        session = self._connection.session
        self._routes = [self._connection.subscribe(f"{self._inbox}*", "", self._arrive)]
        session.on_loss.add(self._on_loss)
        self._forget_status = self._connection.on_status(self._on_status)
        self._pull()

    def stop(self, timeout: float) -> None:
        """Fetch no more, and give back what was not handed over yet. Idempotent."""
        self.stop_fetching(timeout)
        for pulled in self._take_burst():
            self.hand_back(pulled)

    def stop_fetching(self, timeout: float) -> None:
        """Fetch no more, and hand over nothing from here on: `stop` gives it back. Idempotent.

        What is handed back before, the server delivers again to the pull under way.
        """
        if self._has_left:
            return
        with self._lock:
            self._stopped = True
        self._forget_status()
        session = self._connection.session
        session.on_loss.discard(self._on_loss)
        session.stop_routes(self._routes, timeout)
        session.cut_routes(self._routes)
        self._has_left = True  # not before: what Ctrl-C has ended the next stop does

    def hold(self, most: int) -> None:
        """Hold another number of messages at most, from the next request on."""
        self._room = most

    def __len__(self) -> int:
        return len(self._held)

    def ack(self, pulled: Pulled) -> None:
        """Tell the server that a message is done with; without effect when it was told already."""
        self._let_go(pulled, _ACK)

    def hand_back(self, pulled: Pulled, delay: float = 0.0) -> None:
        """Return a message to the stream, to be delivered again at once or after ``delay`` seconds."""
        self._let_go(pulled, _NAK if delay <= 0 else _NAK + b' {"delay": %d}' % api.nanoseconds(delay))

    def hand_back_all(self) -> None:
        """Give back whatever is held."""
        with self._lock:
            held = list(self._held.values())
            self._burst = []
        for pulled in held:
            self.hand_back(pulled)

    def end(self, pulled: Pulled) -> None:
        """Have a message, which nobody could ever handle, delivered no more."""
        self._let_go(pulled, _TERM)

    def forget(self, pulled: Pulled) -> None:
        """Let a message go without a word: the server delivers it again later."""
        with self._lock:
            self._release(pulled)

    def tick(self) -> None:
        """Keep what is held alive, and fetch again if the last pull brought nothing in its time."""
        if self._connection.status is not Status.CONNECTED:
            return
        instant = time.monotonic()
        with self._lock:
            held = list(self._held.values()) if instant - self._renewed >= self._renew_every else []
            if held:
                self._renewed = instant
            expired = self._owed > 0 and instant > self._expires
            # A server that is to say every few seconds that it knows of the pull has died, or has lost its leadership.
            silent = self._owed > 0 and self._is_beating and instant - self._heard > 2 * self._heartbeat
            if expired or silent:
                self._owed = 0
            if silent:
                self._answered = False
        for pulled in held:
            self._say(pulled.reply, _IN_PROGRESS)
        if silent:
            _log.warning(
                "lightlink: fetching from %s: the server has forgotten the request; it is made again", self._what
            )
        elif expired and not self._answered:
            self._on_missing()
        # A burst that broke off goes ahead as it is.
        self._hand_over()
        self._pull()

    # ----------------------------------------------------------------------------------------------------------------

    def _release(self, pulled: Pulled) -> bool:
        """Hold a message no more; False if it was not held, or another one has its place."""
        if self._held.get(pulled.message.seq) is not pulled:
            return False
        del self._held[pulled.message.seq]
        return True

    def _let_go(self, pulled: Pulled, word: bytes) -> None:
        with self._lock:
            if not self._release(pulled):
                return
        self._say(pulled.reply, word)
        self._pull()

    def _say(self, reply: bytes, word: bytes) -> None:
        try:
            # The loop's thread may not wait for room.
            self._connection.publish(reply, word, timeout=0.0)
        except LightLinkError as exc:
            # It is delivered again, and its next handler sees what is left to do.
            _log.warning("lightlink: a message's %s was not said: %s", word.decode(), exc)

    def _pull(self) -> None:
        if self._owed > 0:  # called after each message: the last one of a pull sends the next request
            return
        with self._lock:
            room = self._room - len(self._held)
            # Not for each that ends: half of what may be held is fetched at a time.
            if self._stopped or self._owed > 0 or room < max(1, self._room // 2):
                return
            if self._connection.status is not Status.CONNECTED:
                return
            seconds = _PULL_SECONDS if self._answered else _FIRST_PULL_SECONDS
            room = min(room, self._most or room)
            self._number += 1
            self._owed = room
            self._heard = time.monotonic()
            self._expires = self._heard + seconds + 1
            self._is_beating = self._answered
            reply = f"{self._inbox}{self._number}".encode()
        body = {"batch": room, "expires": api.nanoseconds(seconds)}
        if self._is_beating:
            body["idle_heartbeat"] = api.nanoseconds(self._heartbeat)
        try:
            self._connection.publish(self._subject, codec.encode_json(body), reply, timeout=0.0)
        except LightLinkError as exc:
            self._retry_later()
            _log.warning("lightlink: fetching from %s: %s", self._what, exc)

    def _retry_later(self) -> None:
        with self._lock:
            self._owed = 1
            self._expires = instant_after(_RETRY_SECONDS)

    def _arrive(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        message = read_delivery(subject, reply, data, headers)
        if message is None:
            self._end_of_pull(int(subject[len(self._inbox) :]), *codec.decode_status(headers))
            return
        with self._lock:
            self._answered = True
            self._heard = time.monotonic()
            self._owed -= 1
            last = message.pending == 0 or self._owed <= 0
            begins = not self._whole and not self._burst
            known = self._held.get(message.seq)
            if known is not None and known.message.timestamp != message.timestamp:
                # A stream that was made anew, or restored from an older copy, gives out its places again: whatever is
                # said of the older message would be taken for this one's.
                known = None
            is_late = known is None and self._has_left
            if known is not None:
                # Delivered again while held: only the newest acknowledgement counts.
                known.reply, known.attempt = reply, message.deliveries
            elif not is_late:
                pulled = Pulled(message, reply, message.deliveries)
                self._held[message.seq] = pulled
                self._burst.append(pulled)
        if is_late:
            self._say(reply, _NAK)
        elif begins:
            # After all that this read brought.
            asyncio.get_running_loop().call_soon(self._hand_over)
        elif last and self._whole:
            self._hand_over()
        if last:
            self._pull()

    def _take_burst(self) -> list[Pulled]:
        with self._lock:
            burst, self._burst = self._burst, []
        return burst

    def _hand_over(self) -> None:
        burst = [] if self._stopped else self._take_burst()
        if burst:
            self._on_messages(burst)

    def _end_of_pull(self, number: int, code: str, description: str) -> None:
        with self._lock:
            if number != self._number:  # of an earlier pull
                return
            self._heard = time.monotonic()
            if code == "100":
                return
            self._owed = 0
            self._answered = self._answered or code != "503"
        self._hand_over()
        if code in ("404", "408"):
            self._pull()
            return
        limit = _MOST_AT_ONCE.search(description)
        if limit is not None and int(limit[1]) != self._most:
            self._most = int(limit[1])
            self._pull()
            return
        level = logging.WARNING if code == "409" and "Exceeded" in description else logging.DEBUG
        _log.log(level, "lightlink: fetching from %s: %s %s", self._what, code, description)
        self._retry_later()
        if code == "503" or "deleted" in description.lower():
            self._on_missing()

    def _on_loss(self) -> None:
        # Across accounts the server takes the interest in an inbox for interest in the pulls of the connection that has
        # ended, which lead nowhere: it would go on delivering to them until they expire.
        with self._lock:
            self._inbox = new_inbox(self._connection.options.inbox_prefix)
        for route in self._routes:
            self._connection.session.nc.move_route(route, f"{self._inbox}*")

    def _on_status(self, status: Status) -> None:
        if status is Status.CONNECTED:
            with self._lock:
                # The server has forgotten the pull.
                self._owed = 0
                self._answered = False
            self._hand_over()
            self._pull()
