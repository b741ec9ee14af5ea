"""How far a reader has come in a stream, and the consumer that goes on from there (ADR-17)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from lightlink.jetstream.api import nanoseconds
from lightlink.protocol import codec
from lightlink.protocol.ids import new_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.jetstream.answers import ConsumerInfo, StreamInfo
    from lightlink.jetstream.api import StoredMessage

# Deliver policies: what a reader begins with.
EVERYTHING = "all"
LAST_OF_EACH = "last_per_subject"

_ACK_PREFIX = b"$JS.ACK."
# A consumer that its reader does not delete, having been killed, lives on for this long.
_CONSUMER_SECONDS = 60.0
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Delivery(NamedTuple):
    """A message as it is read.

    ``seq`` is its place in the stream, ``number`` its place among what ``consumer`` delivered, ``timestamp`` in
    nanoseconds since 1970, ``pending`` how many are still to come, ``deliveries`` how often it was delivered.
    """

    subject: bytes
    seq: int
    data: bytes
    headers: bytes | None
    timestamp: int
    pending: int
    consumer: bytes
    number: int
    deliveries: int = 1

    @property
    def size(self) -> int:
        """What it counts in the reader's window, in bytes."""
        return len(self.data) + len(self.headers or b"")

    @property
    def created(self) -> datetime:
        """When it was stored, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.timestamp // 1000)


def read_delivery(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> Delivery | None:
    """Return what a consumer delivered; None when the reply subject is not that of a delivery (ADR-15).

    It is ``$JS.ACK[.<domain>.<account>].<stream>.<consumer>.<deliveries>.<stream seq>.<number>.<time>.<pending>``.
    """
    if not reply.startswith(_ACK_PREFIX):
        return None
    parts = reply.split(b".")
    told = parts[3:9] if len(parts) == 9 else parts[5:11]
    if len(told) < 6 or not b"".join(told[1:]).isdigit():
        return None
    consumer = told[0]
    try:
        deliveries, seq, number, timestamp, pending = map(int, told[1:])
    except ValueError:  # one of them is empty
        return None
    return Delivery(subject, seq, data, headers, timestamp, pending, consumer, number, deliveries)


def from_stored(message: StoredMessage) -> Delivery:
    """Return a message that was got by itself as if it had been delivered."""
    timestamp = (message.created - _EPOCH) // timedelta(microseconds=1) * 1000
    headers = codec.encode_headers(message.headers)
    return Delivery(message.subject.encode(), message.seq, message.data, headers, timestamp, 0, b"", 0)


class Position:
    """Where the reading of a stream has got to.

    ``filters`` are the subjects wanted, ``policy`` says what to begin with, unless ``first`` names a sequence.
    """

    # In a cluster a consumer reads from one of the replicas, which may not have everything yet that the others have
    # acknowledged (tried: one that has just started again says that its part of the stream is empty). So the reading
    # counts as current only when it has come as far as the stream's leader was: `expect`.

    def __init__(self, stream: str, filters: Sequence[str], policy: str, first: int, headers_only: bool) -> None:
        self.stream = stream
        self.filters = list(filters)
        self.is_current = False  # all that was there at the start has been read
        self._policy = policy
        self._first = first
        self._headers_only = headers_only
        self._last = 0
        self._goal = 0
        self._has_all = False  # all that its replica had at the start
        self._pending = 0  # how much that was
        self._count = 0
        self._subjects: set[bytes] = set()
        self._stream_created = ""
        self._is_replicated = False

    @property
    def may_limit_bytes(self) -> bool:
        """Whether a pull request may carry ``max_bytes``.

        Tried with nats-server 2.15.1: of a consumer that begins with the last of each subject, the message that does
        not fit into a pull request any more is never delivered.
        """
        return self.is_current or self._policy != LAST_OF_EACH or bool(self._first)

    @property
    def is_unsure(self) -> bool:
        """Whether the leader has to be asked how much there is, because a replica may not know."""
        return self._is_replicated and not self.is_current

    @property
    def has_all(self) -> bool:
        """Whether all that its replica of the stream had at the start has been read."""
        return self._has_all

    def exhaust(self) -> None:
        """Note that its replica has nothing more: what was there at the start and did not come has been removed."""
        if not self.is_current:
            self._has_all = True
            self._settle()

    def expect(self, seq: int) -> None:
        """Note the last sequence that the stream's leader has of the subjects wanted.

        When told again, the lesser one counts: what was there may be removed before it is read.
        """
        self._goal = min(self._goal or seq, seq)
        self._settle()

    def check_stream(self, info: StreamInfo) -> None:
        """Begin anew when the stream is not the one read before; ``info`` is what the server says of it."""
        created = info.created
        if self._stream_created and (created != self._stream_created or info.state.last_seq < self._last):
            # Another stream, or one that lost its end in a crash: its sequences mean something else now.
            self._last = self._goal = 0
            self._first = min(self._first, 1)
            self.is_current = False
        self._stream_created = created
        self._is_replicated = info.config.num_replicas > 1

    def consumer_request(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return the name of a consumer that goes on from here, the API subject to make it by, and the request."""
        name = new_token()
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": nanoseconds(_CONSUMER_SECONDS),
            "headers_only": self._headers_only,
        }
        if self.is_current or self._first:
            first = max(self._first, self._last + 1)
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": first}
        else:
            # The last value of a subject already read may be another by now: it all counts again, but for `passed`.
            config["deliver_policy"] = self._policy
        subject = f"CONSUMER.CREATE.{self.stream}.{name}"
        if len(self.filters) == 1:
            config["filter_subject"] = self.filters[0]
            subject += f".{self.filters[0]}"
        else:
            config["filter_subjects"] = self.filters
        return name.encode(), subject, {"stream_name": self.stream, "config": config}

    def begin(self, consumer_info: ConsumerInfo) -> None:
        """Read from a new consumer; ``consumer_info`` is the server's answer to the request."""
        if not self.is_current:
            self._pending = consumer_info.num_pending
            self._count = 0
            self._subjects.clear()
            self._has_all = self._pending <= 0
            self._settle()

    def passed(self, delivery: Delivery) -> bool:
        """Note a delivery; False says that it has been read before, or is not wanted."""
        # A replica that has less than it is to begin with begins with what it gets next.
        is_new = delivery.seq > self._last and delivery.seq >= self._first
        self._last = max(self._last, delivery.seq)
        if not self.is_current:
            self._has_all = self._has_all or not delivery.pending or self._has_come(delivery)
            self._settle()
        return is_new

    def _settle(self) -> None:
        self.is_current = self.is_current or (self._has_all and max(self._last, self._first - 1) >= self._goal)

    def _has_come(self, delivery: Delivery) -> bool:
        """Tell whether as much has come as there was at the start, though writers never rest."""
        if self._policy != LAST_OF_EACH or self._first:
            self._count += 1
            return self._count >= self._pending
        # A value overwritten before it was read comes later, behind new ones of other subjects: so subjects count.
        self._subjects.add(delivery.subject)
        if len(self._subjects) < self._pending:
            return False
        self._subjects.clear()
        return True
