"""A bucket of values, over JetStream's key-value convention (ADR-8), in one round trip an operation.

A value is the last message on ``$KV.<bucket>.<key>``, its revision that message's sequence. The bucket is taken to be
there: only when the server says that it is not, a write or watch makes it and tries once more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from lightlink import subjects
from lightlink.errors import InvalidOption, PayloadTooLarge, RevisionConflict, StateError, StateNotFound
from lightlink.options import seconds
from lightlink.runtime import jetstream
from lightlink.runtime.election import while_electing
from lightlink.runtime.jetstream import JetStreamError
from lightlink.runtime.reader import LAST_OF_EACH, read_current
from lightlink.state.entry import OPERATION_HEADER, StateChange, StateEntry, ValueCodec, operation_in, operation_of
from lightlink.state.failures import Failures
from lightlink.state.options import MIN_TTL_SECONDS, BucketOptions, check_seconds
from lightlink.state.watch import StateWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.runtime.connection import Connection
    from lightlink.runtime.jetstream import StoredMessage

T = TypeVar("T")
D = TypeVar("D")

# Stands for a default that is not given: None is a value.
MISSING: Any = object()
# How often a create is tried again because somebody else removed the key again meanwhile.
_CREATE_ATTEMPTS = 4


class StateBucket(Generic[T]):
    """Values under keys, made by `Client.state`; safe to share between threads and across a fork.

    A key has tokens of letters, digits and ``-/_=``, separated by dots. A value is anything JSON carries, read back as
    the bucket's ``value_type``; with ``bytes`` as the type it is bytes as they are. Every method takes ``timeout`` in
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
        self._stream_config = options.stream_config(name)
        self._stream: str = self._stream_config["name"]
        self._prefix = f"$KV.{name}."
        self._on_watch = on_watch
        self._takes_ttl = False
        self._direct: bool | None = None

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
                    last = jetstream.get_last_written(
                        self._connection, self._stream, self._prefix + key, _remaining(deadline)
                    )
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
        self._remove("purge", key, {OPERATION_HEADER: "PURGE", jetstream.ROLLUP: "sub"}, revision, timeout)

    # Reading --------------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: str, *, timeout: float | None = None) -> T: ...
    @overload
    def get(self, key: str, default: D, *, timeout: float | None = None) -> T | D: ...
    def get(self, key: str, default: Any = MISSING, *, timeout: float | None = None) -> Any:
        """Return the value of a key, or ``default`` if it has none.

        Raises StateNotFound without a default, DecodeError.
        """
        message = self._last(key, timeout)
        if message is not None:
            return self._values.decode(message.data, message.subject)
        if default is MISSING:
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
        with Failures(self.name, "keys"):
            try:
                found = read_current(
                    self._connection,
                    self._stream,
                    self._prefix + pattern,
                    self._limit(timeout),
                    policy=LAST_OF_EACH,
                    headers_only=True,
                )
            except JetStreamError as exc:
                if exc.err_code == jetstream.STREAM_NOT_FOUND:
                    return []
                raise
        skip = len(self._prefix)
        return sorted(each.subject[skip:].decode() for each in found if operation_in(each.headers) == "put")

    def history(self, key: str, *, timeout: float | None = None) -> list[StateChange[T]]:
        """Return what the bucket keeps of a key's changes, deletes included, oldest first; raises DecodeError."""
        subject = self._prefix + subjects.state_key(key)
        with Failures(self.name, "history"):
            try:
                found = read_current(self._connection, self._stream, subject, self._limit(timeout))
            except JetStreamError as exc:
                if exc.err_code == jetstream.STREAM_NOT_FOUND:
                    return []
                raise
        return [self._values.change(self._prefix, delivery) for delivery in found]

    def watch(
        self,
        pattern: str = ">",
        handler: Callable[[StateChange[T]], object] | None = None,
        *,
        timeout: float | None = None,
    ) -> StateWatch[T]:
        """Follow the keys that match a pattern: their values as they are, then every change.

        ``handler(change)`` runs on a worker thread, one change at a time. Without a handler, iterate over the watch or
        `StateWatch.get` from it. ``timeout`` is for the start.
        """
        deadline = self._deadline(timeout)
        pattern = subjects.key_pattern(pattern)
        with Failures(self.name, "watch"):
            try:
                watch = self._start_watch(pattern, handler, deadline)
            except JetStreamError as exc:
                if exc.err_code != jetstream.STREAM_NOT_FOUND:
                    raise
                self._make("watch", deadline)
                watch = self._start_watch(pattern, handler, deadline)
        self._on_watch(watch)
        return watch

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
        deadline: float | None = None,
    ) -> int:
        subject = (self._prefix + subjects.state_key(key)).encode()
        deadline = deadline or self._deadline(timeout)
        headers = {} if expected is None else {jetstream.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        with Failures(self.name, operation, writes=True, key=key, expected=expected):
            if ttl is not None:
                headers[jetstream.TTL] = f"{check_seconds('ttl', ttl, MIN_TTL_SECONDS):f}s"
                self._check_takes_ttl(operation, deadline)
            return self._publish(operation, subject, payload, headers, deadline)

    def _remove(
        self, operation: str, key: str, headers: dict[str, str], revision: int | None, timeout: float | None
    ) -> None:
        subject = (self._prefix + subjects.state_key(key)).encode()
        deadline = self._deadline(timeout)
        if revision is not None:
            headers[jetstream.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(_check_revision(revision))
        with Failures(self.name, operation, writes=True, key=key, expected=revision):
            self._publish(operation, subject, b"", headers, deadline, make=False)

    def _publish(
        self,
        operation: str,
        subject: bytes,
        payload: bytes,
        headers: Mapping[str, str],
        deadline: float,
        *,
        make: bool = True,
    ) -> int:
        """Store a message; when no stream listens, make the bucket and try again, or else store nothing."""
        try:
            return jetstream.publish(self._connection, subject, payload, _remaining(deadline), headers).seq
        except JetStreamError as exc:
            if exc.err_code == jetstream.MESSAGE_TOO_LARGE:
                raise PayloadTooLarge(
                    subject.decode(), len(payload), self._max_value_size(operation, deadline)
                ) from exc
            if not exc.no_responders:
                raise
        if make:
            self._make(operation, deadline)
        elif self._info(operation, deadline) is None:
            return 0

        def store(remaining: float) -> int:
            return jetstream.publish(self._connection, subject, payload, remaining, headers).seq

        # The bucket is there; in a cluster it may be without a leader.
        return while_electing(store, _remaining(deadline), lambda exc: getattr(exc, "no_responders", False))

    def _last(self, key: str, timeout: float | None) -> StoredMessage | None:
        """Return the message with a key's value, None if it has none."""
        subject = self._prefix + subjects.state_key(key)
        deadline = self._deadline(timeout)
        with Failures(self.name, "get"):
            try:
                if self._direct is None:
                    self._direct = jetstream.answers_every_direct_get(self._connection)
                if self._direct:
                    message = jetstream.get_last(self._connection, self._stream, subject, _remaining(deadline))
                else:
                    message = self._last_otherwise(subject, deadline)
            except JetStreamError as exc:
                if not exc.no_responders:
                    raise
                # There is no bucket, or it is an old one that allows no direct gets.
                message = self._last_otherwise(subject, deadline)
        return message if message is not None and operation_of(message.headers) == "put" else None

    def _last_otherwise(self, subject: str, deadline: float) -> StoredMessage | None:
        try:
            return jetstream.get_last_written(self._connection, self._stream, subject, _remaining(deadline))
        except JetStreamError as exc:
            if exc.err_code == jetstream.STREAM_NOT_FOUND:
                return None
            raise

    def _start_watch(
        self, pattern: str, handler: Callable[[StateChange[T]], object] | None, deadline: float
    ) -> StateWatch[T]:
        watch = StateWatch(self._connection, self.name, pattern, handler, self._values, self._stream_config)
        watch.start(_remaining(deadline))
        return watch

    def _check_takes_ttl(self, operation: str, deadline: float) -> None:
        """Raise StateError unless a value of this bucket may have a time to live of its own."""
        if self._takes_ttl:
            return
        if self._info(operation, deadline) is None:
            self._make(operation, deadline)
        config = (self._info(operation, deadline) or {}).get("config", {})
        if not config.get("allow_msg_ttl"):
            # An older server ignores the header, and the value would stay for ever.
            reason = "ttl= needs nats-server 2.11 or later and a bucket made with allow_msg_ttl; this one was not"
            raise StateError(self.name, operation, reason)
        if config.get("max_msgs_per_subject") != 1:
            # Tried: when the newest value expires the one before it counts again, markers or not.
            reason = "ttl= needs a bucket with history=1: with more, an older value comes back when this one expires"
            raise StateError(self.name, operation, reason)
        self._takes_ttl = True

    def _max_value_size(self, operation: str, deadline: float) -> int:
        return int((self._info(operation, deadline) or {}).get("config", {}).get("max_msg_size", 0))

    # No value is stored by these two: that one got no answer leaves nothing unknown.

    def _info(self, operation: str, deadline: float) -> dict[str, Any] | None:
        with Failures(self.name, operation):
            return jetstream.stream_info(self._connection, self._stream, _remaining(deadline))

    def _make(self, operation: str, deadline: float) -> None:
        with Failures(self.name, operation):
            jetstream.create_stream(self._connection, self._stream_config, _remaining(deadline))

    def _limit(self, timeout: float | None) -> float:
        return self._connection.options.timeout if timeout is None else seconds("timeout", timeout)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + self._limit(timeout)


def _remaining(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _check_revision(revision: Any) -> int:
    if isinstance(revision, bool) or not isinstance(revision, int) or revision < 0:
        raise InvalidOption("revision", "must be a whole number, 0 or more", revision)
    return revision
