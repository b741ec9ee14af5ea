"""Relay events from a table to their streams: what the outboxes of Django and SQLAlchemy have in common.

A row is written in the caller's own transaction, and removed in one of the relay's once the event is stored. Whoever
dies in between leaves the row, and the event goes out again under the same id, which its stream remembers. Any number
of relays may work side by side where the database can skip locked rows; where it locks as a whole (SQLite) those that
meet publish the same events, and the stream drops what comes twice. Events of one ``key`` keep their order.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from lightlink import logs
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.lifecycle import Lifecycle, Stage
from lightlink.concurrency.threads import Condition, Event, join_thread, start_thread
from lightlink.errors import ClosedError, LightLinkError, NotReady
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_id
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from threading import Thread

    from typing_extensions import Self

    from lightlink.client import Client
    from lightlink.streams.message import StoredMessage
    from lightlink.streams.publish import Stored

_log = logging.getLogger("lightlink")

# How long an event waits that was refused: twice as long each time.
_RETRY_SECONDS = 1.0
_RETRY_SECONDS_MAX = 60.0
_MOST_ERROR = 500
# How long a batch may take: its rows are removed while streams remember their ids, which they do for two minutes.
_BATCH_SECONDS = 30.0
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@attrs.frozen
class OutboxRow:
    """An event that is to go out.

    ``data`` is its body, ``attempts`` how often it was refused, and ``is_resting`` whether it waits for the next.
    """

    id: str
    key: str | None
    subject: str
    data: bytes
    headers: dict[str, Any]
    attempts: int = 0
    is_resting: bool = False

    @classmethod
    def of(cls, subject: str, data: Any, key: str | None, headers: Mapping[str, Any] | None) -> OutboxRow:
        """Return a new event, checked while its writer can still be told: raises InvalidName, EncodeError."""
        subjects.publish_subject(subject)
        body = codec.encode(data, "the event for", subject)
        sent = codec.checked_headers(logs.outgoing(headers) or {})
        return cls(new_id(), key, subject, body, dict(sent))

    @property
    def lane(self) -> str:
        """What keeps its order: all rows of its key, or it alone."""
        return self.id if self.key is None else f"key {self.key}"

    @property
    def headers_text(self) -> str:
        """The headers as a column holds them."""
        return json.dumps(self.headers)

    def delay(self) -> float:
        """Return how many seconds it waits when it was refused once more."""
        return float(min(_RETRY_SECONDS * 2**self.attempts, _RETRY_SECONDS_MAX))


def in_turn(rows: Iterable[OutboxRow]) -> list[OutboxRow]:
    """Return those of rows in order that may go out now: of each key those before the first that rests."""
    held: set[str] = set()
    found = []
    for row in rows:
        if row.is_resting:
            held.add(row.lane)
        if row.lane not in held:
            found.append(row)
    return found


def inbox_key(message: StoredMessage, consumer: str) -> dict[str, Any]:
    """Return what tells an event that a consumer handles from all others.

    By place and time: a stream that was made anew, or restored from an older copy, gives out its places again.
    """
    return {
        "consumer": consumer,
        "stream": message.stream,
        "sequence": message.sequence,
        "stored_at": (message.stored_at - _EPOCH) // timedelta(microseconds=1),
    }


# What became of the events of a batch: None where it is stored, else why not; those left out were not tried.
Outcomes = dict[str, "str | None"]


Send = Callable[["Sequence[OutboxRow]"], Outcomes]


class OutboxStore(Protocol):
    """The table."""

    def take(self, most: int, send: Send) -> int:
        """Send at most about ``most`` rows that do not rest; return how many were removed.

        Of each key the first row that nobody else has, and those behind it up to one that rests. Only what was refused
        rests: when a row was written tells nothing, as clocks differ.
        """
        ...

    def close(self) -> None:
        """Give back what this thread has of the database."""
        ...


class TwoSteps:
    """Sends between two transactions, for a database that locks as a whole: no writer waits for a server.

    ``read`` returns rows and locks nothing; ``settle`` removes or delays them, unless another relay already has.
    """

    def __init__(
        self, read: Callable[[int], list[OutboxRow]], settle: Callable[[list[OutboxRow], Outcomes], int]
    ) -> None:
        self._read = read
        self._settle = settle
        self._turn = Condition()
        self._sent: tuple[list[OutboxRow], Outcomes] | None = None

    def take(self, most: int, send: Send) -> int:
        """Send at most about ``most`` rows; return how many were removed."""
        with self._turn:
            # What could not be settled, as others had the database for long, is not sent again meanwhile: in the end
            # its stream would have forgotten the ids.
            if self._sent is None:
                rows = self._read(most)
                if not rows:
                    return 0
                self._sent = rows, send(rows)
            count = self._settle(*self._sent)
            self._sent = None
            return count


class OutboxRelay(Lifecycle):
    """Relays what is in an outbox, on a thread of its own from `start` to `stop`, or with `run` in this one.

    It looks every ``interval`` seconds, and at once when it is nudged.
    """

    def __init__(self, store: OutboxStore, client: Client, *, batch: int = 200, interval: float = 0.5) -> None:
        super().__init__()
        self._store = store
        self._client = client
        self._batch = integer("batch", batch)
        self._interval = seconds("interval", interval)
        self._changed = Condition()
        self._is_nudged = False
        self._ended = Event()
        self._thread: Thread | None = None
        self.relayed = 0

    @property
    def client(self) -> Client:
        """The client it talks through."""
        return self._client

    def nudge(self) -> None:
        """Have it look now: something was committed."""
        with self._changed:
            self._is_nudged = True
            self._changed.notify_all()

    def relay(self) -> int:
        """Relay what is there now and return how many events that were; raises the database's errors."""
        total = 0
        self._client.open()  # one that is lazy may not have been used yet
        while self.stage is not Stage.STOPPED and self._client.wait_connected(self._interval):
            count = self._store.take(self._batch, self._send)
            total += count
            self.relayed += count
            if count == 0:
                break
        return total

    def start(self) -> Self:
        """Begin, on a thread; returns self. Raises NotReady after the first start."""
        if self.stage is not Stage.NEW:
            raise NotReady("the outbox's relay", f"is {self.stage.value} already")
        self._stage = Stage.RUNNING
        try:
            self._thread = start_thread(self._work, "lightlink-outbox")
        except LightLinkError:
            self._stage = Stage.NEW
            raise
        except BaseException:
            self.stop(0.0)  # interrupted: it may run already, or begin yet
            raise
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """End, once the batch that is under way is through, within ``timeout`` seconds; idempotent."""
        self._stage = Stage.STOPPED
        self._stop_signal.set()
        self.nudge()
        if self._thread is not None:
            join_thread(self._thread, timeout)

    # ------------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self.stage is Stage.RUNNING:
            try:
                self.relay()
            except ClosedError:
                break
            except Exception as exc:  # the database's errors have no base in common, and it may come back
                _log.warning("lightlink: the outbox waits: %s: %s", type(exc).__name__, exc)
            with self._changed:
                if not self._is_nudged:
                    self._changed.wait(self._interval)
                self._is_nudged = False
        self._store.close()
        self._stop_signal.set()

    def _send(self, rows: Sequence[OutboxRow]) -> Outcomes:
        """Publish events: one of each key at a time, and all that have none at once."""
        lanes: dict[str, list[OutboxRow]] = {}
        for row in rows:
            lanes.setdefault(row.lane, []).append(row)
        outcomes: Outcomes = {}
        deadline = Deadline(_BATCH_SECONDS)
        while lanes:
            sent = {name: (lane[0], self._submit(lane[0])) for name, lane in lanes.items()}
            for name, (row, future) in sent.items():
                outcomes[row.id] = error = _outcome(future)
                if error is None and len(lanes[name]) > 1:
                    del lanes[name][0]
                else:
                    del lanes[name]  # what is behind a refused event waits for it
            if deadline.is_over:
                break
        return outcomes

    def _submit(self, row: OutboxRow) -> Future[Stored] | LightLinkError:
        try:
            return self._client.submit_stored(row.subject, row.data, id=row.id, headers=row.headers or None)
        except LightLinkError as exc:
            return exc


def _outcome(sent: Future[Stored] | LightLinkError) -> str | None:
    try:
        if isinstance(sent, LightLinkError):
            raise sent
        sent.result()
    except LightLinkError as exc:
        _log.warning("lightlink: an event of the outbox waits: %s", exc)
        return f"{type(exc).__name__}: {exc}"[:_MOST_ERROR]
    return None
