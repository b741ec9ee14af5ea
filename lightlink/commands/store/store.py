"""Commands in JetStream: the only part of the commands that knows it.

Requests are written once; statuses by compare-and-set, so of two writers exactly one succeeds. Every method raises
StoreUnavailable when JetStream refuses or does not answer, PermissionDenied, PayloadTooLarge and ClosedError.
"""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.commands import model
from lightlink.commands.model import Progress, RequestRecord, StatusRecord
from lightlink.commands.store import records, schema
from lightlink.commands.store.access import FAILURES, Access, Conflict, check, unavailable
from lightlink.connection.volley import Volley
from lightlink.errors import (
    CommandNotFound,
    DecodeError,
    InvalidOption,
    LightLinkError,
    PermissionDenied,
    StoreUnavailable,
)
from lightlink.jetstream import api
from lightlink.jetstream.answers import ConsumerInfo
from lightlink.jetstream.api import EXPECTED_LAST_SUBJECT_SEQUENCE
from lightlink.jetstream.errors import CONSUMER_NOT_FOUND, TOO_LARGE, WRONG_LAST_SEQUENCE, JetStreamError
from lightlink.jetstream.retry import PAUSE, RetryBudget
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from lightlink.commands.model import Command
    from lightlink.commands.store.schema import StoreOptions
    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import GroupWaiter, Waiter
    from lightlink.jetstream.api import StoredMessage

    MakeHeaders = Callable[[float], bytes]

_log = logging.getLogger("lightlink")

# How many consumers are made at a time; each is some work for the server.
_CONSUMERS_AT_ONCE = 200
_LEAST_STREAM = 4 * 1024
# By so much at once, so that the first stream does not take what the others need.
_SHRINK = 8
_SETTLE_SECONDS = 0.3
_SETTLE_ROUNDS = 100
_CONSUMER_EXISTS = frozenset({10013, 10105, 10148})
# From so many agents on it is quicker to list the consumers that are there.
_WORTH_A_LIST = 100
# How long a manager may go on trying to have a command stored.
_ON_THE_WAY = timedelta(minutes=1)


@attrs.frozen
class StatusWrite:
    """A status to store over the revision it is based on (0: none)."""

    client_id: str
    command_id: str
    record: StatusRecord
    expected: int


class CommandStore(Access):
    """Requests and statuses over one connection; ``timeout`` seconds for each operation."""

    def __init__(self, connection: Connection, options: StoreOptions, timeout: float) -> None:
        super().__init__(connection, timeout)
        if not isinstance(options, schema.StoreOptions):
            raise InvalidOption("store", "must be StoreOptions(...)", type(options).__name__)
        self.options = options
        # When each consumer was last known to be there, as `time.monotonic` counts; unused ones go away after a while.
        self._consumers: dict[str, float] = {}

    # Streams and consumers ------------------------------------------------------------------------------------------

    def ensure_streams(self) -> None:
        """Make the streams that do not exist yet, and go by the retention and heartbeat of those that do.

        Raises StoreUnavailable also for one whose configuration differs in what matters, with the difference.
        """
        room = self.options.max_bytes
        for config in schema.streams(self.options):
            name = config["name"]
            made, room = self.make_stream(config, room)
            if not made and (found := self._config(name)) is not None:
                difference = schema.difference(config, found)
                if difference:
                    raise StoreUnavailable(f"using stream {name}", f"its configuration differs: {difference}")
            if not made and (info := self.stream_info(name, f"reading stream {name}")) is not None:
                self.options = schema.as_made(self.options, name, info.config)

    def make_stream(self, config: dict[str, Any], room: int) -> tuple[bool, int]:
        """Make a stream with its share of ``room`` bytes, of less where the server has less.

        Returns whether it is as wanted, and the room of which the others get their share.
        """
        name = config["name"]
        while True:
            sized = {**config, "max_bytes": schema.share(name, room)}
            try:
                return api.create_stream(self.connection, sized, self.timeout), room
            except FAILURES as exc:
                if not isinstance(exc, JetStreamError) or exc.err_code not in TOO_LARGE:
                    raise StoreUnavailable(f"making stream {name}", str(exc)) from exc
                smaller = room // _SHRINK
                if schema.share(name, smaller) < _LEAST_STREAM:
                    reason = f"{exc.description}; give the server more, or StoreOptions(max_bytes=) less"
                    raise StoreUnavailable(f"making stream {name}", reason) from exc
                _log.warning("lightlink: the server has no room for %d bytes of commands; trying %d", room, smaller)
                room = smaller

    def prune(self, older_than: float) -> int:
        """Remove requests and statuses older than ``older_than`` seconds, and earlier revisions of the others.

        Returns how many messages that were. The streams deny purges and deletes, so that no writer can remove what
        others wrote; an administrator, who may update streams, has the server age them for a moment.
        """
        removed = 0
        for name in (subjects.STATUS_STREAM, subjects.COMMANDS_STREAM):
            config, before = self._config(name), self._count(name)
            if config is None:
                continue
            short = {**config, "max_age": api.nanoseconds(older_than)}
            if name == subjects.STATUS_STREAM:
                short["max_msgs_per_subject"] = 1
            short["duplicate_window"] = min(config.get("duplicate_window", 0), short["max_age"])
            try:
                self._update_stream(short)
                self._settle(name)
            finally:
                self._update_stream(config)
            removed += before - self._count(name)
        return max(removed, 0)

    def _config(self, name: str) -> dict[str, Any] | None:
        return self.ask(f"reading stream {name}", partial(api.stream_config, self.connection, name))

    def _count(self, name: str) -> int:
        info = self.stream_info(name, f"reading stream {name}")
        return 0 if info is None else info.state.messages

    def _update_stream(self, config: dict[str, Any]) -> None:
        subject = f"STREAM.UPDATE.{config['name']}"
        self.ask(f"updating stream {config['name']}", partial(api.api, self.connection, subject, config))

    def _settle(self, name: str) -> None:
        """Wait until a stream holds no less than a moment before: the server removes in blocks."""
        last = -1
        for _ in range(_SETTLE_ROUNDS):
            held = self._count(name)
            if held == last:
                return
            last = held
            time.sleep(_SETTLE_SECONDS)

    def ensure_consumers(self, client_ids: Iterable[str]) -> None:
        """Make the consumers that do not exist yet, many at once."""
        since = time.monotonic() - self.options.retention / 2
        missing = [each for each in dict.fromkeys(client_ids) if self._consumers.get(each, -math.inf) < since]
        if len(missing) >= _WORTH_A_LIST:
            missing = self._without_those_there(missing)
        for start in range(0, len(missing), _CONSUMERS_AT_ONCE):
            block = missing[start : start + _CONSUMERS_AT_ONCE]
            self.patiently("making consumers", partial(self._make_consumers, block))

    def _without_those_there(self, client_ids: list[str]) -> list[str]:
        """Return the agents that have no consumer, and remember those that do: asking for each takes far longer."""
        asked_at = time.monotonic()
        try:
            there = self.ask(
                "listing consumers", partial(api.consumer_names, self.connection, subjects.COMMANDS_STREAM)
            )
        except (StoreUnavailable, PermissionDenied) as exc:
            _log.debug("lightlink: consumers are asked for one by one: %s", exc)
            return client_ids
        missing = []
        for client_id in client_ids:
            if subjects.agent_consumer(client_id) in there:
                self._consumers[client_id] = asked_at
            else:
                missing.append(client_id)
        return missing

    def _make_consumers(self, client_ids: Sequence[str], timeout: float) -> None:
        requests = [schema.consumer_request(client_id, self.options) for client_id in client_ids]
        bodies = [
            (api.api_subject(self.connection, subject), codec.encode_json(body), None) for subject, body in requests
        ]
        for waiter in self.request_all(bodies, timeout):
            try:
                check(waiter)
                api.raise_problem(waiter)
            except JetStreamError as exc:
                if exc.err_code not in _CONSUMER_EXISTS:
                    raise
        self._consumers.update(dict.fromkeys(client_ids, time.monotonic()))

    def never_seen(self, client_ids: Sequence[str]) -> list[str]:
        """Return those of some agents for which there is no consumer: nobody has sent to them, nor heard of them."""
        asked = [each for each in dict.fromkeys(client_ids) if each not in self._consumers]
        missing: list[str] = []
        for start in range(0, len(asked), _CONSUMERS_AT_ONCE):
            block = asked[start : start + _CONSUMERS_AT_ONCE]
            questions = [f"CONSUMER.INFO.{subjects.COMMANDS_STREAM}.{subjects.agent_consumer(each)}" for each in block]
            waiters = self.request_all([(api.api_subject(self.connection, each), b"", None) for each in questions])
            for client_id, waiter in zip(block, waiters, strict=True):
                try:
                    check(waiter)
                    api.raise_problem(waiter)
                except JetStreamError as exc:
                    if exc.err_code != CONSUMER_NOT_FOUND:
                        raise StoreUnavailable("looking for agents", str(exc)) from exc
                    missing.append(client_id)
                except FAILURES as exc:
                    raise StoreUnavailable("looking for agents", str(exc)) from exc
        return missing

    def forget_consumers(self) -> None:
        """Believe of no consumer any more that it exists."""
        self._consumers.clear()

    def consumer_ack_wait(self, client_id: str) -> float:
        """Return for how many seconds an agent's consumer waits for a sign of life."""
        subject = f"CONSUMER.INFO.{subjects.COMMANDS_STREAM}.{subjects.agent_consumer(client_id)}"

        def question(timeout: float) -> ConsumerInfo:
            return api.api(self.connection, subject, None, timeout, ConsumerInfo)

        return self.ask(f"reading the consumer of {client_id}", question).config.ack_wait / 1e9

    # Requests -------------------------------------------------------------------------------------------------------

    def put_request(self, record: RequestRecord) -> RequestRecord:
        """Store a request and return what is stored under its id: this one, or the one that came first."""
        budget = RetryBudget(self.timeout)
        subject, payload = encoded_request(record)
        unknown = False
        while True:
            try:
                self._put(subjects.COMMANDS_STREAM, subject, payload, 0, "sending a command")
            except Conflict:
                return self._first_under(record)
            except StoreUnavailable as exc:
                # Whatever became of it, asking again under the same id stores it once.
                unknown = unknown or exc.unknown
                if budget.allows(exc):
                    time.sleep(PAUSE)
                    continue
                raise StoreUnavailable(exc.operation, exc.reason, unknown) from exc
            return record

    def _first_under(self, record: RequestRecord) -> RequestRecord:
        """Return the request that is stored under a record's id."""
        if record.idempotency_key is None:
            return record  # nobody else has this id: it was stored by an attempt whose answer never came
        try:
            return self.get_request(record.client_id, record.command_id) or record
        except StoreUnavailable as exc:
            raise StoreUnavailable(exc.operation, exc.reason, unknown=True) from exc

    def put_requests(
        self, records: Sequence[RequestRecord], on_stored: Callable[[RequestRecord, Exception | None], None]
    ) -> None:
        """Store many requests, pipelined; ``on_stored`` is told of each, on a thread of the library.

        Its error is a Conflict or what the methods of this class raise. Nothing is raised.
        """

        def settle(waiters: Sequence[GroupWaiter]) -> None:
            for waiter in waiters:
                on_stored(waiter.about, self._outcome(waiter))

        try:
            Volley(self.connection, self.timeout, settle, _expecting(0)).send(map(_to_send, records))
        except LightLinkError as exc:
            for record in records:
                on_stored(record, exc)

    def _outcome(self, waiter: Waiter) -> Exception | None:
        try:
            check(waiter)
            api.parse_ack(self.connection, waiter, subjects.COMMANDS_STREAM)
        except FAILURES as exc:
            if isinstance(exc, JetStreamError) and exc.err_code in WRONG_LAST_SEQUENCE:
                return Conflict(waiter.subject.decode())
            return unavailable("sending a command", exc)
        except LightLinkError as exc:
            return exc
        return None

    def get_request(self, client_id: str, command_id: str) -> RequestRecord | None:
        """Return a request by both ids; raises DecodeError."""
        return _request(self.read_written(subjects.COMMANDS_STREAM, subjects.command_request(client_id, command_id)))

    def read_requests(self, ids: Sequence[tuple[str, str]]) -> list[RequestRecord | Command | None]:
        """Return the request for each (client id, command id), all asked for at once; any replica answers.

        None stands for one that is not there, and the command that is shown for one that cannot be read.
        """
        found: list[RequestRecord | Command | None] = []
        for each, waiter in zip(
            ids, self._get_all(subjects.COMMANDS_STREAM, subjects.command_request, ids), strict=True
        ):
            try:
                check(waiter)
                message = api.parse_stored(waiter)
                found.append(_request(message))
            except DecodeError as exc:
                found.append(
                    model.unreadable_command(
                        *each, self.clock.now() if message is None else message.created, exc.reason
                    )
                )
            except FAILURES as exc:
                raise StoreUnavailable("reading requests", str(exc)) from exc
        return found

    def find_request(self, command_id: str) -> RequestRecord | None:
        """Return a request by its command's id alone; raises DecodeError."""
        return self.get_request("*", schema.command_id(command_id))

    def unreadable(self, command_id: str, reason: str) -> Command:
        """Return what is shown of a command whose request cannot be read; raises CommandNotFound."""
        message = self.read_written(subjects.COMMANDS_STREAM, subjects.command_request("*", command_id))
        if message is None:
            raise CommandNotFound(command_id)
        return model.unreadable_command(*subjects.command_ids(message.subject), message.created, reason)

    # Statuses -------------------------------------------------------------------------------------------------------

    def read_status(self, client_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return the last status and its revision; (None, 0) when there is none yet. Any replica answers."""
        return _status(self.read(subjects.STATUS_STREAM, subjects.command_status(client_id, command_id)))

    def read_written_status(self, client_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return what `read_status` does, with all that was acknowledged; an agent's identity may not ask so."""
        return _status(self.read_written(subjects.STATUS_STREAM, subjects.command_status(client_id, command_id)))

    def read_statuses(self, ids: Iterable[tuple[str, str]]) -> list[tuple[StatusRecord | None, int]]:
        """Return the last status and its revision for each (client id, command id), all asked for at once.

        Any replica answers.
        """
        statuses = []
        for waiter in self._get_all(subjects.STATUS_STREAM, subjects.command_status, ids):
            try:
                check(waiter)
                statuses.append(_status(api.parse_stored(waiter)))
            except FAILURES as exc:
                raise StoreUnavailable("reading statuses", str(exc)) from exc
        return statuses

    def read_written_statuses(self, ids: Iterable[tuple[str, str]]) -> list[tuple[StatusRecord | None, int]]:
        """Return what `read_statuses` does, with all that was acknowledged: the stream's leader answers."""
        asked = [subjects.command_status(*each) for each in ids]
        return [_status(each) for each in self.read_all_written(subjects.STATUS_STREAM, asked, "reading statuses")]

    def _get_all(
        self, stream: str, subject_of: Callable[[str, str], str], ids: Iterable[tuple[str, str]]
    ) -> list[Waiter]:
        """Ask any replica for the last message of each command's subject in a stream, all at once."""
        gets = [f"DIRECT.GET.{stream}.{subject_of(*each)}" for each in ids]
        return self.request_all([(api.api_subject(self.connection, each), b"", None) for each in gets])

    def read_progress(self, ids: Sequence[tuple[str, str]]) -> list[Progress | None]:
        """Return the last progress of each command that runs, None where nothing was told. Any replica answers."""
        found: list[Progress | None] = []
        for waiter in self._get_all(subjects.PROGRESS_STREAM, subjects.command_progress, ids):
            try:
                check(waiter)
                message = api.parse_stored(waiter)
                found.append(read_progress(message.data, message.subject) if message is not None else None)
            except (*FAILURES, PermissionDenied, DecodeError) as exc:
                _log.debug("lightlink: reading progress: %s", exc)  # it is worth no error
                found.append(None)
        return found

    def last_status_revision(self) -> int | None:
        """Return the revision of the last status of any command, None when there is no bucket for them."""
        info = self.stream_info(subjects.STATUS_STREAM, "reading statuses")
        return info.state.last_seq if info is not None else None

    def write_status(self, client_id: str, command_id: str, record: StatusRecord, expected: int) -> int:
        """Store a status over the revision it is based on (0: none) and return the new revision.

        Raises Conflict when that is not the last.
        """
        payload = codec.encode_json(record, "the command's result")
        subject = subjects.command_status(client_id, command_id)
        return self._put(subjects.STATUS_STREAM, subject, payload, expected, "writing a status")

    def write_statuses(self, writes: Sequence[StatusWrite]) -> list[int | None]:
        """Store many statuses at once; return the new revision of each, None where another writer came first."""
        requests = [
            (
                api.write_subject(self.connection, subjects.command_status(write.client_id, write.command_id)),
                codec.encode_json(write.record, "the command's result"),
                _expecting(write.expected),
            )
            for write in writes
        ]
        revisions: list[int | None] = []
        for waiter in self.request_all(requests):
            try:
                check(waiter)
                revisions.append(api.parse_ack(self.connection, waiter, subjects.STATUS_STREAM).seq)
            except FAILURES as exc:
                if not isinstance(exc, JetStreamError) or exc.err_code not in WRONG_LAST_SEQUENCE:
                    raise unavailable("writing statuses", exc) from exc
                revisions.append(None)
        return revisions

    def _put(self, stream: str, subject: str, payload: bytes, expected: int, operation: str) -> int:
        return self.put(stream, subject, payload, {EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}, operation)


def encoded_request(record: RequestRecord) -> tuple[str, bytes]:
    """Return the subject and body of a request."""
    subject = subjects.command_request(record.client_id, record.command_id)
    return subject, codec.encode_json(record, f"the command {record.command_type!r}")


def _to_send(record: RequestRecord) -> tuple[bytes, bytes, RequestRecord]:
    subject, payload = encoded_request(record)
    return subject.encode(), payload, record


def read_request(data: bytes, subject: str, stored: datetime | None = None) -> RequestRecord:
    """Return the request in a message on its subject; raises DecodeError, also when the two do not agree.

    Its time counts from when it was ``stored`` where its writer, whose clock may be wrong, says something else.
    """
    request = records.read(data, subject, RequestRecord, "created_at")
    if subjects.command_request(request.client_id, request.command_id) != subject:
        raise DecodeError(subject, "the command in it has other ids than its subject", data[:64])
    if not (subjects.is_plain_token(request.client_id) and subjects.is_plain_token(request.command_id)):
        # They become part of subjects that are written and read, where a wildcard would stand for others' commands.
        raise DecodeError(subject, "its ids are not one token of a subject each", data[:64])
    if not 0 <= request.timeout <= schema.LONGEST:
        # Whoever looks at many commands works out their deadlines, and must not stumble over one.
        request = msgspec.structs.replace(request, timeout=min(max(request.timeout, 0.0), schema.LONGEST))
    if stored is not None and not stored - _ON_THE_WAY <= request.created_at <= stored + model.GRACE:
        request = msgspec.structs.replace(request, created_at=stored)
    return request


def read_status(data: bytes, subject: str) -> StatusRecord:
    """Return the status in a stored or republished message; raises DecodeError."""
    return records.read(data, subject, StatusRecord, "at", "started_at", "completed_at")


def read_progress(data: bytes, subject: str) -> Progress | None:
    """Return the progress in a message, None when it says that there is none any more; raises DecodeError."""
    return codec.decode(data, subject, Progress) if data else None


def _request(message: StoredMessage | None) -> RequestRecord | None:
    return None if message is None else read_request(message.data, message.subject, message.created)


def _status(message: StoredMessage | None) -> tuple[StatusRecord | None, int]:
    if message is None:
        return None, 0
    try:
        return read_status(message.data, message.subject), message.seq
    except DecodeError as exc:
        # Any agent may write what it likes about its own commands; nobody else is to stumble over it.
        return model.unreadable(message.created, str(exc)), message.seq


def _expecting(sequence: int) -> MakeHeaders:
    block = codec.encode_headers({EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence)})
    return lambda _: block
