"""A bucket of values, over JetStream's key-value convention (ADR-8), in one round trip an operation.

A value is the last message on ``$KV.<bucket>.<key>``, its revision that message's sequence.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from msgspec import UNSET

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import InvalidOption, RevisionConflict, StateNotFound
from lightlink.jetstream import api
from lightlink.jetstream.errors import STREAM_NOT_FOUND, JetStreamError
from lightlink.jetstream.read import LAST_OF_EACH, read_current
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text
from lightlink.state.entry import OPERATION_HEADER, StateChange, StateEntry, ValueCodec, operation_in, operation_of
from lightlink.state.failures import Failures
from lightlink.state.options import MIN_TTL_SECONDS, BucketInfo, BucketOptions, check_seconds
from lightlink.state.snapshot import Restored, Snapshot
from lightlink.state.stream import BucketStream
from lightlink.state.watch import StateWatch
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.api import StoredMessage
    from lightlink.jetstream.read import Delivery

T = TypeVar("T")
D = TypeVar("D")

# How often a create is tried again because somebody else removed the key again meanwhile.
_CREATE_ATTEMPTS = 4


class StateBucket(Generic[T]):
    """Values under keys, made by `Client.state`; safe to share between threads and across a fork.

    A key has tokens of letters, digits and ``-/_=``, separated by dots. A value is anything JSON carries, read back as
    the bucket's ``value_type``; with ``bytes`` as the type it is bytes as they are. A client never reads an older value
    of a key than it has written or read before; what another client has just written, a read may miss for a moment in
    a cluster, but no `update` that is based on it succeeds. Every method takes ``timeout`` in
    seconds (default: the client's) and raises InvalidName, StateError (its ``unknown`` says that a write may or may not
    have been stored), PermissionDenied and ClosedError.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        value_type: Any,
        options: BucketOptions,
        on_watch: Callable[[StateWatch[T]], object],
    ) -> None:
        self.name = subjects.bucket_name(name)
        self._connection = connection
        self._values: ValueCodec[T] = ValueCodec(value_type)
        self._stream = BucketStream(connection, name, options.stream_config(name), may_shrink=options.max_bytes is None)
        self._on_watch = on_watch

    def __repr__(self) -> str:
        return f"<StateBucket {self.name!r}>"

    # Writing --------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: T, *, ttl: float | None = None, timeout: float | None = None) -> int:
        """Store a value and return its revision.

        With ``ttl`` the key is gone after that many seconds, at least 1; that needs a bucket that keeps no history, and
        nats-server 2.11 or later. Raises EncodeError, PayloadTooLarge, InvalidOption.
        """
        return self._write("set", key, self._values.encode(key, value), ttl=ttl, timeout=timeout)

    def update(
        self, key: str, value: T, *, revision: int, ttl: float | None = None, timeout: float | None = None
    ) -> int:
        """Store a value if ``revision`` is the key's last still (0: it was never written); return the new revision.

        Raises RevisionConflict if it is not, and the errors of `set`.
        """
        _check_revision(revision)
        return self._write("update", key, self._values.encode(key, value), ttl=ttl, expected=revision, timeout=timeout)

    def create(self, key: str, value: T, *, ttl: float | None = None, timeout: float | None = None) -> int:
        """Store a value if the key has none, and return its revision; of several writers one succeeds.

        Raises RevisionConflict if it has one, and the errors of `set`.
        """
        deadline = self._deadline(timeout)
        payload = self._values.encode(key, value)
        expected = 0
        for _ in range(_CREATE_ATTEMPTS):
            try:
                return self._write("create", key, payload, ttl=ttl, expected=expected, deadline=deadline)
            except RevisionConflict:
                # A key that was deleted has a last message all the same: the one that says so.
                with Failures(self.name, "create"):
                    last = self._stream.last_written(key, deadline)
                if last is not None and operation_of(last.headers) == "put":
                    break
                expected = last.seq if last is not None else 0
        raise RevisionConflict(self.name, key, 0)

    def delete(self, key: str, *, revision: int | None = None, timeout: float | None = None) -> None:
        """Remove a value; older values stay in the history. Without effect when there is none.

        With ``revision`` only if that is the key's last still; else RevisionConflict.
        """
        self._remove("delete", key, {OPERATION_HEADER: "DEL"}, revision, timeout)

    def purge(self, key: str, *, revision: int | None = None, timeout: float | None = None) -> None:
        """Remove a value and its history; see `delete`."""
        self._remove("purge", key, {OPERATION_HEADER: "PURGE", api.ROLLUP: "sub"}, revision, timeout)

    def purge_deletes(self, older_than: float = 1800.0, *, timeout: float | None = None) -> int:
        """Remove what deleted keys have left (markers and history) and return how many keys that were.

        Markers that are younger than ``older_than`` seconds by the server's clock stay, so that watches hear of them.
        Needs the right to purge the bucket's stream, as an admin has it. Raises InvalidOption.
        """
        older_than = check_seconds("older_than", older_than, 0.0)
        deadline = self._deadline(timeout)
        found = self._read("purge_deletes", ">", timeout, policy=LAST_OF_EACH, headers_only=True)
        removed = 0
        with Failures(self.name, "purge_deletes", writes=True):
            info = api.stream_info(self._connection, self._stream.name, deadline.as_timeout())
            if info is None:
                return 0
            before = (info.told_at or self._connection.clock.now()) - timedelta(seconds=older_than)
            for delivery in found:
                if operation_in(delivery.headers) != "put" and delivery.created <= before:
                    subject = as_text(delivery.subject)
                    left = deadline.as_timeout()
                    api.purge_up_to(self._connection, self._stream.name, subject, delivery.seq, left)
                    removed += 1
        return removed

    # Reading --------------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: str, *, timeout: float | None = None) -> T: ...
    @overload
    def get(self, key: str, default: D, *, timeout: float | None = None) -> T | D: ...
    def get(self, key: str, default: Any = UNSET, *, timeout: float | None = None) -> Any:
        """Return the value of a key, or ``default`` if it has none.

        Raises StateNotFound without a default, DecodeError.
        """
        message = self._last(key, timeout)
        if message is not None:
            return self._values.decode(message.data, message.subject)
        if default is UNSET:
            raise StateNotFound(self.name, key)
        return default

    def entry(self, key: str, *, timeout: float | None = None) -> StateEntry[T]:
        """Return the value of a key with its revision; raises StateNotFound, DecodeError."""
        message = self._last(key, timeout)
        if message is None:
            raise StateNotFound(self.name, key)
        return self._values.entry(key, message)

    def keys(self, pattern: str = ">", *, timeout: float | None = None) -> list[str]:
        """Return the keys that have a value and match a pattern (``*`` for a token, ``>`` for the rest), sorted."""
        pattern = subjects.key_pattern(pattern)
        found = self._read("keys", pattern, timeout, policy=LAST_OF_EACH, headers_only=True)
        return sorted(self._key(each) for each in found if operation_in(each.headers) == "put")

    def snapshot(self, pattern: str = ">", *, timeout: float | None = None) -> Snapshot:
        """Return the values of the keys that match a pattern, for `restore`."""
        pattern = subjects.key_pattern(pattern)
        found = self._read("snapshot", pattern, timeout, policy=LAST_OF_EACH)
        values = {self._key(each): (each.seq, each.data) for each in found if operation_in(each.headers) == "put"}
        taken_at = self._connection.clock.now()
        return Snapshot(bucket=self.name, pattern=pattern, taken_at=taken_at, values=values)

    def restore(
        self,
        snapshot: Snapshot,
        *,
        after: Snapshot | None = None,
        changed: Literal["refuse", "keep", "overwrite"] = "refuse",
        timeout: float | None = None,
    ) -> Restored:
        """Write the values of a snapshot back, and remove keys of its pattern that had none; equal ones stay.

        ``after`` is a snapshot from after one's own changes: what is not as it says was changed by others since, and is
        refused (before anything is written), kept or overwritten. Each write is made over the revision that was looked
        at: RevisionConflict tells of one that came in between. Raises InvalidOption for another bucket's snapshot.
        """
        if snapshot.bucket != self.name:
            raise InvalidOption("snapshot", f"is of bucket {snapshot.bucket!r}", self.name)
        found = self._read("restore", snapshot.pattern, timeout, policy=LAST_OF_EACH)
        now = {
            self._key(each): (each.seq, each.data if operation_in(each.headers) == "put" else None) for each in found
        }
        wanted = {key: value for key, (_, value) in snapshot.values.items()}
        different = [key for key in sorted({*now, *wanted}) if now.get(key, (0, None))[1] != wanted.get(key)]
        foreign = [] if after is None else [key for key in different if self._is_foreign(key, now, after)]
        if foreign and changed == "refuse":
            expected = after.values.get(foreign[0], (0, b""))[0] if after is not None else 0
            raise RevisionConflict(self.name, foreign[0], expected)
        kept = foreign if changed == "keep" else []
        for key in different:
            if key not in kept:
                self._write_back(key, wanted.get(key), now.get(key, (0, None))[0], timeout)
        return Restored(
            written=tuple(key for key in different if key in wanted and key not in kept),
            removed=tuple(key for key in different if key not in wanted and key not in kept),
            kept=tuple(kept),
        )

    @staticmethod
    def _is_foreign(key: str, now: dict[str, tuple[int, bytes | None]], after: Snapshot) -> bool:
        revision, value = now.get(key, (0, None))
        known = after.values.get(key)
        return value is not None if known is None else revision != known[0]

    def _write_back(self, key: str, value: bytes | None, revision: int, timeout: float | None) -> None:
        if value is None:
            self.delete(key, revision=revision, timeout=timeout)
        else:
            self._write("restore", key, value, expected=revision, timeout=timeout)

    def history(self, key: str, *, timeout: float | None = None) -> list[StateChange[T]]:
        """Return what the bucket keeps of a key's changes, deletes included, oldest first; raises DecodeError."""
        found = self._read("history", subjects.stored_key(key), timeout)
        return [self._values.change(self._stream.prefix, delivery) for delivery in found]

    def watch(
        self,
        pattern: str = ">",
        handler: Callable[[StateChange[T]], object] | None = None,
        *,
        since: int | Literal["now"] | None = None,
        timeout: float | None = None,
    ) -> StateWatch[T]:
        """Follow the keys that match a pattern: their values as they are, then every change.

        ``since="now"`` leaves the values out, and brings changes from now on; a revision brings every change from that
        one on that the bucket still has: say, the last that was handled, plus one.

        ``handler(change)`` runs on a worker thread, one change at a time. Without a handler, iterate over the watch or
        `StateWatch.get` from it. ``timeout`` is for the start.
        """
        deadline = self._deadline(timeout)
        pattern = subjects.key_pattern(pattern)
        if since not in (None, "now"):
            integer("since", since)
        with Failures(self.name, "watch"):
            try:
                watch = self._start_watch(pattern, handler, since, deadline)
            except JetStreamError as exc:
                if exc.err_code != STREAM_NOT_FOUND:
                    raise
                self._stream.make("watch", deadline)
                watch = self._start_watch(pattern, handler, since, deadline)
        self._on_watch(watch)
        return watch

    # The bucket itself ----------------------------------------------------------------------------------------------

    def info(self, *, timeout: float | None = None) -> BucketInfo | None:
        """Return how the bucket was made and what it holds; None while there is none."""
        with Failures(self.name, "info"):
            found = api.stream_info(self._connection, self._stream.name, self._limit(timeout))
        return None if found is None else BucketInfo.of(found)

    def destroy(self, *, timeout: float | None = None) -> bool:
        """Remove the bucket with all its values; tell whether there was one. The next write makes it anew.

        Needs the right to delete the bucket's stream, as an admin has it.
        """
        self._stream.revisions.stream_was_seen = False
        self._stream.forget_settings()
        with Failures(self.name, "destroy", writes=True):
            try:
                api.delete_stream(self._connection, self._stream.name, self._limit(timeout))
            except JetStreamError as exc:
                if exc.err_code != STREAM_NOT_FOUND:
                    raise
                return False
        return True

    # ----------------------------------------------------------------------------------------------------------------

    def _write(
        self,
        operation: str,
        key: str,
        payload: bytes,
        *,
        ttl: float | None = None,
        expected: int | None = None,
        timeout: float | None = None,
        deadline: Deadline | None = None,
    ) -> int:
        # One that is written over, or back, may be another client's, with characters that are none of ADR-8's.
        key = subjects.stored_key(key) if expected or operation == "restore" else subjects.state_key(key)
        deadline = deadline or self._deadline(timeout)
        headers = {} if expected is None else {api.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        with Failures(self.name, operation, writes=True, key=key, expected=expected):
            if ttl is not None:
                headers[api.TTL] = f"{check_seconds('ttl', ttl, MIN_TTL_SECONDS):f}s"
                self._stream.check_takes_ttl(operation, deadline)
            return self._stream.store(operation, key, payload, headers, deadline)

    def _remove(
        self, operation: str, key: str, headers: dict[str, str], revision: int | None, timeout: float | None
    ) -> None:
        key = subjects.stored_key(key)
        deadline = self._deadline(timeout)
        if revision is not None:
            headers[api.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(_check_revision(revision))
        with Failures(self.name, operation, writes=True, key=key, expected=revision):
            life = self._stream.marker_life(deadline, alone=api.ROLLUP in headers)
            if life:
                headers[api.TTL] = f"{life:f}s"
            self._stream.store(operation, key, b"", headers, deadline, make=False)

    def _last(self, key: str, timeout: float | None) -> StoredMessage | None:
        """Return the message with a key's value, None if it has none."""
        key = subjects.stored_key(key)
        with Failures(self.name, "get"):
            message = self._stream.last(key, self._deadline(timeout))
        return message if message is not None and operation_of(message.headers) == "put" else None

    def _start_watch(
        self,
        pattern: str,
        handler: Callable[[StateChange[T]], object] | None,
        since: int | Literal["now"] | None,
        deadline: Deadline,
    ) -> StateWatch[T]:
        self._stream.look(deadline)
        first = since
        if first == "now":
            info = api.stream_info(self._connection, self._stream.name, deadline.as_timeout())
            first = 1 if info is None else info.state.last_seq + 1
        watch = StateWatch(self._connection, pattern, handler, self._values, self._stream, first)
        watch.start(deadline.as_timeout())
        return watch

    def _read(self, operation: str, pattern: str, timeout: float | None, **settings: Any) -> list[Delivery]:
        """Return the messages of the keys that match a pattern; none where there is no bucket."""
        limit = self._limit(timeout)
        with Failures(self.name, operation):
            self._stream.look(Deadline(limit))
            subject = self._stream.prefix + pattern
            try:
                found = read_current(self._connection, self._stream.name, subject, limit, **settings)
            except JetStreamError as exc:
                if exc.err_code != STREAM_NOT_FOUND:
                    raise
                return []
        for delivery in found:
            self._stream.revisions.note(self._key(delivery), delivery.seq)
        return found

    def _key(self, delivery: Delivery) -> str:
        return as_text(delivery.subject[len(self._stream.prefix) :])

    def _limit(self, timeout: float | None) -> float:
        return self._connection.options.timeout if timeout is None else seconds("timeout", timeout)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._limit(timeout))


def _check_revision(revision: Any) -> int:
    # The server takes one of more than 64 bits for what is left of it then, which may be the last.
    return integer("revision", revision, 0, 2**64 - 1)
