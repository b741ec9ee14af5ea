"""The stream behind a bucket: the messages of its keys, stored and read (ADR-8).

The stream is looked for before a client's first write, and made: while somebody subscribes to all there is, nobody says
that no stream listens. From then on it is taken to be there: only when the server says that nobody listens, a write
makes it and tries again. In a cluster that may also mean that the stream is without a leader at the moment, so it tries
until its deadline.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline, instant_after
from lightlink.connection.connection import NoReply
from lightlink.errors import PayloadTooLarge, PermissionDenied, StateError
from lightlink.jetstream import api
from lightlink.jetstream.answers import StreamConfig, StreamInfo
from lightlink.jetstream.errors import MESSAGE_TOO_LARGE, STREAM_NOT_FOUND, SUBJECTS_OVERLAP, JetStreamError
from lightlink.jetstream.retry import is_electing, is_unheard, pauses, while_electing
from lightlink.jetstream.revisions import revisions_of
from lightlink.options import DEFAULT_JETSTREAM_API
from lightlink.protocol import subjects
from lightlink.state.failures import Failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.answers import Mirror
    from lightlink.jetstream.api import StoredMessage

# How long a marker of a deleted key stays in a bucket of limited size, for watches that were away.
_MARKER_SECONDS = 86_400.0
# How long what a bucket was made with is taken for known: others may make it anew.
_SETTINGS_SECONDS = 60.0
# How long making the stream may take before the write is tried again, at first; then twice as long each time.
_MAKING_SECONDS = 0.25
# Until a mirror that lags is looked at again, at first; then twice as long each time.
_MIRROR_SECONDS = 0.01


class BucketStream:
    """Stores and reads a bucket's messages.

    Methods raise JetStreamError, NoReply, StateError, PermissionDenied and ClosedError.
    """

    def __init__(
        self, connection: Connection, bucket: str, config: Mapping[str, Any], *, may_shrink: bool = False
    ) -> None:
        self.bucket = bucket
        self.config = config
        self._create = api.create_bounded_stream if may_shrink else api.create_stream
        self.name: str = config["name"]
        # What the keys' subjects begin with, as they are stored and as they are written: those of a bucket that
        # mirrors another are the other's (ADR-8).
        self.prefix = subjects.state_keys(bucket)
        self._write_prefix = api.write_subject(connection, self.prefix).decode()
        self._written_to = self.name
        self._is_known = False
        # Nobody says that no stream listens, behind an import or in another domain: it has to be made before a write.
        self._is_elsewhere = connection.options.jetstream_api != DEFAULT_JETSTREAM_API
        self.revisions = revisions_of(connection, self.name)
        self._connection = connection
        self._direct: bool | None = None
        self.forget_settings()

    def forget_settings(self) -> None:
        """Ask again how the bucket was made: it may have been made anew since."""
        self._takes_ttl = False
        self._marker_lives: tuple[float, float] | None = None
        self._settings_known_until = instant_after(_SETTINGS_SECONDS)

    def store(
        self,
        operation: str,
        key: str,
        payload: bytes,
        headers: Mapping[str, str],
        deadline: Deadline,
        *,
        make: bool = True,
    ) -> int:
        """Store a message of a key and return its sequence; without ``make`` nothing (0) where there is no stream."""
        if not self.revisions.stream_was_seen and self._see(operation, deadline, make) is False:
            return 0
        try:
            seq = self._store(operation, key, payload, headers, deadline, make)
        except (JetStreamError, NoReply, KeyboardInterrupt):
            # Refused, it tells of a message that is not known here; without an answer, nobody can tell.
            self.revisions.doubt(key)
            raise
        self.revisions.note(key, seq)
        return seq

    def last(self, key: str, deadline: Deadline) -> StoredMessage | None:
        """Return a key's last message, None if it has none; never one older than this client has written or read."""
        if not self.revisions.stream_was_seen and self._see("get", deadline, make=False) is False:
            return None
        if self._direct is None:
            self._direct = api.answers_every_direct_get(self._connection)
        if not self._direct:
            return self.last_written(key, deadline)

        def ask(limit: float) -> StoredMessage | None:
            try:
                return api.get_last(self._connection, self.name, self.prefix + key, limit)
            except JetStreamError as exc:
                if not exc.no_responders:
                    raise
                # There is no bucket, or an old one that allows no direct gets, or nobody yet who answers them.
                return self.last_written(key, Deadline(limit))

        message = while_electing(ask, deadline.as_timeout(), repeatable=True)
        if message is None and self.look(deadline):
            return self.last(key, deadline)
        seq = message.seq if message is not None else 0
        if self.revisions.is_old(key, seq):
            self._wait_for_origin(key, deadline)
            return self.last_written(key, deadline)
        if seq:
            self.revisions.note(key, seq)
        return message

    def _wait_for_origin(self, key: str, deadline: Deadline) -> None:
        """Wait until a mirror, whose leader lags too, has come as far as what this client knows of a key."""
        if self._written_to == self.name:
            return
        known = self.revisions.known(key)
        for pause in pauses(_MIRROR_SECONDS):
            try:
                info = api.stream_info(self._connection, self.name, deadline.as_timeout())
            except PermissionDenied:
                return
            if info is None or info.state.last_seq >= known:
                return
            if deadline.remaining() < pause:
                reason = f"it mirrors {self._written_to!r}, and has not got yet what this client knows of key {key!r}"
                raise StateError(self.bucket, "get", reason)
            time.sleep(pause)

    def last_written(self, key: str, deadline: Deadline) -> StoredMessage | None:
        """Return a key's last message as the stream's leader has it, None if there is none, or no stream."""
        try:
            message = api.get_last_written(self._connection, self.name, self.prefix + key, deadline.as_timeout())
        except JetStreamError as exc:
            if exc.err_code != STREAM_NOT_FOUND:
                raise
            message = None
        self.revisions.learn(key, message.seq if message is not None else 0)
        return message

    def look(self, deadline: Deadline) -> bool:
        """Find out, once, whether the bucket mirrors another; tell whether that was found just now.

        Its keys have the other bucket's subjects then, and are written there (ADR-8). Raises StateError for a stream
        that is no bucket of this name.
        """
        if self._is_known:
            return False
        try:
            info = api.stream_info(self._connection, self.name, deadline.as_timeout())
        except PermissionDenied:
            info = StreamInfo(StreamConfig([f"{self.prefix}>"]))  # without the right to look, assume the usual subjects
        return info is not None and self._know(info)

    def _know(self, info: StreamInfo) -> bool:
        mirror = info.config.mirror
        if mirror:
            self._follow(mirror)
        else:
            self._check_subjects(info.config.subjects or [])
        self._is_known = True
        return bool(mirror)

    def _check_subjects(self, taken: list[str]) -> None:
        for each in taken:
            if each.startswith(self.prefix) or subjects.matches(each, f"{self.prefix}>"):
                return
        what = f"it takes the subjects {', '.join(taken) or 'none'}"
        raise StateError(self.bucket, "use", f"stream {self.name!r} is no bucket of this name: {what}")

    def _follow(self, mirror: Mirror) -> None:
        origin = mirror.name
        api_prefix = mirror.external.api if mirror.external is not None else ""
        bucket = origin.removeprefix(subjects.STATE_STREAMS)
        if not origin.startswith(subjects.STATE_STREAMS) or not subjects.is_plain_token(bucket):
            raise StateError(self.bucket, "use", f"it mirrors the stream {origin!r}, which is no bucket")
        self.prefix = subjects.state_keys(bucket)
        here = api.write_subject(self._connection, self.prefix).decode()
        self._write_prefix = f"{api_prefix}.{self.prefix}" if api_prefix else here
        self._written_to = origin
        # A mirror's messages have the sequences of the origin, for whose direct gets the server may ask the mirror.
        self.revisions = revisions_of(self._connection, f"{api_prefix}.{origin}" if api_prefix else origin)

    def make(self, operation: str, deadline: Deadline) -> None:
        """Make the stream unless it is there."""
        with Failures(self.bucket, operation):  # no value is stored by this: without an answer nothing is unknown
            self._create(self._connection, self.config, deadline.as_timeout())

    def check_takes_ttl(self, operation: str, deadline: Deadline) -> None:
        """Raise StateError unless a value of this bucket may have a time to live of its own."""
        self._forget_old_settings()
        if self._takes_ttl:
            return
        if self._info(operation, deadline) is None:
            self.make(operation, deadline)
        info = self._info(operation, deadline)
        config = StreamConfig() if info is None else info.config
        if not config.allow_msg_ttl:
            # An older server ignores the header, and the value would stay for ever.
            reason = "ttl= needs nats-server 2.11 or later and a bucket made with allow_msg_ttl; this one was not"
            raise StateError(self.bucket, operation, reason)
        if config.max_msgs_per_subject != 1:
            # Tried: when the newest value expires the one before it counts again, markers or not.
            reason = "ttl= needs a bucket with history=1: with more, an older value comes back when this one expires"
            raise StateError(self.bucket, operation, reason)
        self._takes_ttl = True

    def marker_life(self, deadline: Deadline, *, alone: bool) -> float:
        """Return for how many seconds a marker of a deleted key stays, 0: for good.

        It goes by what the bucket was made with, in one of limited size a day: markers would fill it. One that does not
        stand ``alone`` stays where there is a history, of which a value would come back behind it.
        """
        self._forget_old_settings()
        if self._marker_lives is None:
            try:
                info = api.stream_info(self._connection, self.name, deadline.as_timeout())
            except PermissionDenied:
                info = StreamInfo()
            if info is None:
                return 0.0
            self._marker_lives = _marker_lives(info.config)
        return self._marker_lives[alone]

    def _store(
        self, operation: str, key: str, payload: bytes, headers: Mapping[str, str], deadline: Deadline, make: bool
    ) -> int:
        timeout = deadline.as_timeout()
        is_there: bool | None = None  # not known yet
        making = _MAKING_SECONDS

        def publish() -> int:
            subject = (self._write_prefix + key).encode()
            limit = deadline.as_timeout()
            return api.publish(self._connection, self._written_to, subject, payload, limit, headers).seq

        def ask(_: float) -> int:
            nonlocal is_there, making
            try:
                return publish()
            except JetStreamError as exc:
                if not exc.no_responders or is_there:
                    raise
            is_there = self._is_there(operation, min(making, deadline.as_timeout()), make)
            making *= 2
            if is_there is False:
                return 0
            if is_there and self.look(deadline):
                is_there = None  # it is written elsewhere
            return publish()

        try:
            return while_electing(ask, timeout, is_unheard)
        except JetStreamError as exc:
            if exc.err_code == MESSAGE_TOO_LARGE:
                subject = self._write_prefix + key
                raise PayloadTooLarge(subject, len(payload), self._max_size(operation, deadline)) from exc
            if not exc.no_responders:
                raise
            reason = f"no server has taken it within {timeout:.3g} s; the bucket may be without a leader"
            raise StateError(self.bucket, operation, reason) from exc

    def _see(self, operation: str, deadline: Deadline, make: bool) -> bool | None:
        """Look for the stream before a write, and make it; False: there is none, None: that cannot be told yet.

        Where it cannot be told in half of the time, the message is written all the same.
        """
        if self._is_elsewhere:
            there = self._is_there(operation, deadline.as_timeout(), make)
        else:
            there = self._is_found(deadline.as_timeout() / 2)
            if there is False and make:
                there = self._is_made(operation, deadline.as_timeout() / 2)
        # A bucket that mirrors another is written elsewhere, which each one has to learn.
        self.revisions.stream_was_seen = there is True and self._written_to == self.name
        return there

    def _is_found(self, timeout: float) -> bool | None:
        try:
            info = api.stream_info(self._connection, self.name, timeout)
        except PermissionDenied:
            return True  # whoever may not look writes all the same
        except (NoReply, JetStreamError):
            return None
        if info is not None and not self._is_known:
            self._know(info)
        return info is not None

    def _is_made(self, operation: str, timeout: float) -> bool | None:
        try:
            return self._is_there(operation, timeout, make=True)
        except StateError as exc:
            cause = exc.__cause__
            if isinstance(cause, JetStreamError) and cause.err_code == SUBJECTS_OVERLAP:
                return None  # the write is refused by name: another stream takes the subject
            raise

    def _is_there(self, operation: str, timeout: float, make: bool) -> bool | None:
        """Make the stream, or look whether it is there; None when that cannot be told yet.

        The meta leader, which makes streams, may be elected later than the stream's own leader.
        """
        with Failures(self.bucket, operation):
            try:
                if make:
                    self._create(self._connection, self.config, timeout)
                    return True
                return api.stream_info(self._connection, self.name, timeout) is not None
            except NoReply:
                return None
            except JetStreamError as exc:
                if not is_electing(exc):
                    raise
                return None

    def _max_size(self, operation: str, deadline: Deadline) -> int:
        info = self._info(operation, deadline)
        return 0 if info is None else info.config.max_msg_size

    def _forget_old_settings(self) -> None:
        if time.monotonic() > self._settings_known_until:
            self.forget_settings()

    def _info(self, operation: str, deadline: Deadline) -> StreamInfo | None:
        with Failures(self.bucket, operation):
            return api.stream_info(self._connection, self.name, deadline.as_timeout())


def _marker_lives(config: StreamConfig) -> tuple[float, float]:
    """Return the seconds that a marker stays over a history, and that one stays alone."""
    if not config.allow_msg_ttl:
        return 0.0, 0.0
    seconds = config.subject_delete_marker_ttl / 1e9
    if not seconds and config.max_bytes > 0:
        seconds = _MARKER_SECONDS
    return (seconds if config.max_msgs_per_subject == 1 else 0.0), seconds
