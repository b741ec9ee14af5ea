"""Which command has which status, type and batch: kept in memory by a reader that follows, so that a rare one is found.

It only says where to look. Whatever it names is read from the store, and counts as it stands there; what has been
acknowledged before a question is in it before the question is answered.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lightlink.commands import model
from lightlink.commands.store import schema
from lightlink.commands.store.access import FAILURES
from lightlink.commands.store.store import read_request
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.concurrency.threads import Condition, start_thread, wait_until
from lightlink.errors import DecodeError, LightLinkError
from lightlink.jetstream.read import EVERYTHING, LAST_OF_EACH, Delivery, OrderedReader
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lightlink.commands.store.filter import Filter
    from lightlink.commands.store.store import CommandStore
    from lightlink.jetstream.answers import StreamState

_log = logging.getLogger("lightlink")

# It is not kept where reading all requests would take too long: then the stream is looked through.
MOST_BYTES = 256 * 1024 * 1024
_WINDOW = 2048
_NO_LIMIT = 1 << 40
# How long it follows though nobody asks.
_IDLE_SECONDS = 300.0
_LOOK_SECONDS = 1.0
_OPEN = "open"


class _Entry(NamedTuple):
    seq: int
    client_id: str
    command_type: str
    batch_id: str | None
    deadline: datetime | None


class _Slim(msgspec.Struct):
    """What of a status is looked at."""

    status: str = ""


class CommandIndex:
    """The index of one manager; begun by the first question that needs it, and let go when nobody asks any more."""

    def __init__(self, store: CommandStore) -> None:
        self._store = store
        self._changed = Condition()
        self._entries: dict[str, _Entry] = {}
        self._statuses: dict[str, str] = {}
        # The ids of commands that are open, of those that have failed or timed out, and of those of each batch.
        self._some: dict[str, dict[str, None]] = {}
        self._reached = {schema.REQUESTS: 0, schema.STATUS: 0}
        self._readers: list[OrderedReader] = []
        self._queue: MessageQueue | None = None
        self._asked_at = 0.0

    @property
    def is_following(self) -> bool:
        """Whether it has been begun, so that a question costs little."""
        return self._queue is not None

    def find(self, wanted: Filter, before: int, timeout: float) -> Iterator[tuple[int, str, str]] | None:
        """Return the commands that may pass a filter, newest first, as (sequence, client id, command id).

        None says that it cannot tell: the stream has to be looked through. ``timeout`` is how long it may take to learn
        what there is.
        """
        self._asked_at = time.monotonic()
        try:
            if not self._catch_up(timeout):
                return None
        except (*FAILURES, LightLinkError) as exc:
            _log.debug("lightlink: the index of commands is not to be had: %s", exc)
            return None
        with self._changed:
            candidates = self._candidates(wanted)
        return self._matching(candidates, wanted, before, self._store.clock.now())

    def stop(self) -> None:
        """Follow no more, and forget; idempotent."""
        with self._changed:
            readers, self._readers = self._readers, []
            queue, self._queue = self._queue, None
            self._entries, self._statuses, self._some = {}, {}, {}
            self._reached = dict.fromkeys(self._reached, 0)
            self._changed.notify_all()
        for reader in readers:
            reader.stop()
        if queue is not None:
            queue.close()

    # Asking ---------------------------------------------------------------------------------------------------------

    def _candidates(self, wanted: Filter) -> list[tuple[str, _Entry]]:
        """Return the commands among which those wanted are, newest first."""
        groups = []
        if wanted.batch_id is not None:
            groups = [_batch(wanted.batch_id)]
        elif wanted.status in (model.PENDING, model.EXECUTING):
            groups = [_OPEN]
        elif wanted.status == model.TIMEOUT:
            groups = [_OPEN, model.TIMEOUT]
        elif wanted.status == model.FAILED:
            groups = [model.FAILED]
        if not groups:
            found = list(self._entries.items())
            found.reverse()
            return found
        ids = itertools.chain.from_iterable(self._some.get(group, {}) for group in groups)
        found = [(each, self._entries[each]) for each in ids if each in self._entries]
        return sorted(found, key=lambda item: item[1].seq, reverse=True)

    def _matching(
        self, entries: list[tuple[str, _Entry]], wanted: Filter, before: int, at: datetime
    ) -> Iterator[tuple[int, str, str]]:
        for command_id, entry in entries:
            if entry.seq >= before or not self._may_pass(command_id, entry, wanted, at):
                continue
            yield entry.seq, entry.client_id, command_id

    def _may_pass(self, command_id: str, entry: _Entry, wanted: Filter, at: datetime) -> bool:
        if entry.deadline is None:  # it cannot be read
            return wanted.shows_unreadable
        if wanted.client_id not in (None, entry.client_id):
            return False
        if wanted.command_type not in (None, entry.command_type) or wanted.batch_id not in (None, entry.batch_id):
            return False
        if wanted.status is None:
            return True
        status = self._statuses.get(command_id, model.PENDING)
        if status in (model.PENDING, model.EXECUTING):
            # Nobody may have written down that it is overdue.
            return wanted.status == (status if at <= entry.deadline + model.GRACE else model.TIMEOUT)
        return status == wanted.status

    def _catch_up(self, timeout: float) -> bool:
        """See that it knows all that was acknowledged until now; False when that is too much, or takes too long."""
        deadline = Deadline(timeout)
        ends = {}
        for stream in self._reached:
            info = self._store.stream_info(stream, "listing commands")
            if info is None:
                return False
            ends[stream] = info.state
        if ends[schema.REQUESTS].bytes > MOST_BYTES:
            self.stop()
            return False
        if any(self._reached[stream] > state.last_seq for stream, state in ends.items()):
            self.stop()  # the stream was lost, and made anew
        if self._queue is None:
            self._begin()
        with self._changed:
            wait_until(self._changed, lambda: self._queue is None or self._has(ends), deadline.remaining())
            known = self._queue is not None and self._has(ends)
        self._forget_expired(ends[schema.REQUESTS].first_seq)
        return known

    def _has(self, ends: dict[str, StreamState]) -> bool:
        return all(self._reached[stream] >= state.last_seq for stream, state in ends.items())

    def _forget_expired(self, first: int) -> None:
        """Let go of commands that the stream holds no more; they are the oldest."""
        with self._changed:
            gone = [each for each, _ in itertools.takewhile(lambda item: item[1].seq < first, self._entries.items())]
            for command_id in gone:
                entry = self._entries.pop(command_id)
                for group in (_OPEN, self._statuses.pop(command_id, _OPEN), _batch(entry.batch_id)):
                    self._some.get(group, {}).pop(command_id, None)

    # Following ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        queue = MessageQueue(2 * _WINDOW + 2, _NO_LIMIT)
        connection = self._store.connection
        wanted = (
            (schema.REQUESTS, EVERYTHING),
            (schema.STATUS, LAST_OF_EACH),
        )
        readers = []
        for stream, policy in wanted:
            reader = OrderedReader(
                connection,
                stream,
                [schema.EVERYTHING],
                lambda delivery, stream=stream: queue.put((stream, delivery), 0),  # type: ignore[misc]
                policy=policy,
                window=_WINDOW,
            )
            readers.append(reader)
        with self._changed:
            self._queue, self._readers = queue, readers
        start_thread(self._follow, "lightlink-command-index", queue, dict(zip(self._reached, readers, strict=True)))
        for reader in readers:
            reader.start(self._store.timeout)

    def _follow(self, queue: MessageQueue, readers: dict[str, OrderedReader]) -> None:
        while True:
            try:
                stream, delivery = queue.get(time.monotonic() + _LOOK_SECONDS)
            except TimeoutError:
                if time.monotonic() - self._asked_at > _IDLE_SECONDS and self._queue is queue:
                    self.stop()
                continue
            except Closed:
                return
            readers[stream].release(delivery)
            with self._changed:
                if self._queue is not queue:
                    return
                self._note(stream, delivery)
                self._reached[stream] = max(self._reached[stream], delivery.seq)
                if not len(queue):
                    self._changed.notify_all()

    def _note(self, stream: str, delivery: Delivery) -> None:
        subject = as_text(delivery.subject)
        if subject == schema.SWEPT:
            return
        client_id, command_id = schema.ids_of(subject)
        if stream == schema.STATUS:
            self._statuses[command_id] = status = _status_of(delivery)
            is_open = status in (model.PENDING, model.EXECUTING)
            if not is_open:
                self._some.get(_OPEN, {}).pop(command_id, None)
            if status != model.COMPLETED:
                self._some.setdefault(_OPEN if is_open else status, {})[command_id] = None
            return
        try:
            request = read_request(delivery.data, subject, delivery.created)
        except DecodeError:
            self._entries[command_id] = _Entry(delivery.seq, client_id, "", None, None)
            self._some.setdefault(model.FAILED, {})[command_id] = None
            return
        self._entries[command_id] = _Entry(
            delivery.seq, client_id, request.command_type, request.batch_id, request.deadline
        )
        if command_id not in self._statuses:
            self._some.setdefault(_OPEN, {})[command_id] = None
        if request.batch_id is not None:
            self._some.setdefault(_batch(request.batch_id), {})[command_id] = None


def _batch(batch_id: str | None) -> str:
    return f"batch {batch_id}"


def _status_of(delivery: Delivery) -> str:
    try:
        return msgspec.json.decode(delivery.data, type=_Slim).status
    except (ValueError, msgspec.MsgspecError):
        return model.FAILED  # as one is shown that cannot be read
