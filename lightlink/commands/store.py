"""Commands in JetStream: the only part of the commands that knows it.

Requests are written once; statuses by compare-and-set, so of two writers exactly one succeeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lightlink import codec
from lightlink.commands import schema
from lightlink.commands.model import RequestRecord, StatusRecord
from lightlink.errors import LightLinkError, StoreUnavailable
from lightlink.runtime import jetstream
from lightlink.runtime.connection import NoReply
from lightlink.runtime.jetstream import EXPECTED_LAST_SUBJECT_SEQUENCE, WRONG_LAST_SEQUENCE, JetStreamError
from lightlink.runtime.reader import LAST_OF_EACH, read_current

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.schema import StoreOptions
    from lightlink.runtime.connection import Connection
    from lightlink.runtime.jetstream import StoredMessage
    from lightlink.runtime.replies import Waiter

T = TypeVar("T")

_DELETED = "KV-Operation"


class Conflict(LightLinkError):
    """Another writer came first. For use inside the library."""


class Presence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent says of itself with each heartbeat; times RFC 3339."""

    client_id: str
    instance: str
    connected_at: str
    last_heartbeat: str
    labels: dict[str, str] = {}
    state: str = "online"
    remote_addr: str = ""
    in_flight: int = 0
    queued: int = 0


class CommandStore:
    """Requests, statuses and presence over one connection; ``timeout`` seconds for each operation."""

    def __init__(self, connection: Connection, options: StoreOptions, timeout: float) -> None:
        self.connection = connection
        self.options = options
        self.timeout = timeout
        self._consumers: set[str] = set()

    def ensure_streams(self) -> None:
        """Make the streams that do not exist yet."""
        for config in schema.streams(self.options):
            try:
                jetstream.create_stream(self.connection, config, self.timeout)
            except (JetStreamError, NoReply) as exc:
                raise unavailable(f"making stream {config['name']}", exc) from exc

    def ensure_consumer(self, client_id: str) -> None:
        """Make an agent's consumer unless it exists."""
        if client_id in self._consumers:
            return
        subject, body = self._consumer_request(client_id)
        try:
            jetstream.api(self.connection, subject, body, self.timeout)
        except (JetStreamError, NoReply) as exc:
            raise unavailable(f"making the consumer of {client_id}", exc) from exc
        self._consumers.add(client_id)

    def ensure_consumers(self, client_ids: list[str]) -> None:
        """Make many agents' consumers, all at once."""
        missing = [client_id for client_id in dict.fromkeys(client_ids) if client_id not in self._consumers]
        requests = []
        for client_id in missing:
            subject, body = self._consumer_request(client_id)
            requests.append((f"{jetstream.API}.{subject}".encode(), codec.encode_json(body), None))
        for client_id, waiter in zip(missing, self._request_all(requests), strict=True):
            try:
                _check(waiter)
                jetstream.raise_problem(waiter)
            except (JetStreamError, NoReply) as exc:
                raise unavailable(f"making the consumer of {client_id}", exc) from exc
        self._consumers.update(missing)

    # Requests -------------------------------------------------------------------------------------------------------

    def put_request(self, record: RequestRecord) -> RequestRecord:
        """Store a request and return what is stored under its id: this one, or the one that came first."""
        subject = schema.request_subject(record.client_id, record.command_id)
        payload = codec.encode_json(record, f"the command {record.command_type!r}")
        try:
            self._put(subject, payload, expected=0)
        except Conflict:
            return self.get_request(record.client_id, record.command_id) or record
        except NoReply as exc:
            # Whatever became of it, asking again under the same id stores it once.
            if not exc.sent:
                raise unavailable("sending a command", exc) from exc
            return self._put_again(record, subject, payload)
        return record

    def put_requests(
        self, records: list[RequestRecord], on_stored: Callable[[RequestRecord, Exception | None], None]
    ) -> None:
        """Store many requests, pipelined; ``on_stored`` is told of each, on a thread of the library."""
        for record in records:
            subject = schema.request_subject(record.client_id, record.command_id).encode()
            payload = codec.encode_json(record, f"the command {record.command_type!r}")

            def settle(waiter: Waiter, record: RequestRecord = record) -> None:
                on_stored(record, self._outcome(waiter))

            self.connection.request_async(subject, payload, self.timeout, settle, _expecting(0))

    def get_request(self, client_id: str, command_id: str) -> RequestRecord | None:
        """Return a request by both ids."""
        return _request(self._read(schema.REQUESTS, schema.request_subject(client_id, command_id)))

    def find_request(self, command_id: str) -> RequestRecord | None:
        """Return a request by its command's id alone."""
        pattern = schema.request_subject("*", schema.command_id(command_id))
        try:
            return _request(jetstream.find_last(self.connection, schema.REQUESTS, pattern, self.timeout))
        except JetStreamError as exc:
            if exc.no_responders:
                return None  # no streams yet, so no commands
            raise unavailable("reading a command", exc) from exc
        except NoReply as exc:
            raise unavailable("reading a command", exc) from exc

    # Statuses -------------------------------------------------------------------------------------------------------

    def read_status(self, client_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return the last status and its revision; (None, 0) when there is none yet."""
        message = self._read(schema.STATUS, schema.status_subject(client_id, command_id))
        if message is None:
            return None, 0
        return read_status(message.data, message.subject), message.seq

    def read_statuses(self, ids: list[tuple[str, str]]) -> list[StatusRecord | None]:
        """Return the last status of each (client id, command id), all asked for at once."""
        requests = []
        for client_id, command_id in ids:
            subject = schema.status_subject(client_id, command_id)
            requests.append((f"{jetstream.API}.DIRECT.GET.{schema.STATUS}.{subject}".encode(), b"", None))
        statuses = []
        for waiter in self._request_all(requests):
            try:
                _check(waiter)
                message = jetstream.parse_stored(waiter)
            except (JetStreamError, NoReply) as exc:
                raise unavailable("reading statuses", exc) from exc
            statuses.append(None if message is None else read_status(message.data, message.subject))
        return statuses

    def write_status(self, client_id: str, command_id: str, record: StatusRecord, expected: int) -> int:
        """Store a status over the revision it is based on (0: none) and return the new revision.

        Raises Conflict when that is not the last, NoReply when the outcome is unknown or it never left.
        """
        payload = codec.encode_json(record, "the command's result")
        return self._put(schema.status_subject(client_id, command_id), payload, expected)

    # Presence -------------------------------------------------------------------------------------------------------

    def write_presence(self, presence: Presence, expected: int) -> int:
        """Store an agent's presence over the revision it is based on; raises Conflict, NoReply."""
        return self._put(schema.presence_subject(presence.client_id), codec.encode_json(presence), expected)

    def read_presence(self, client_id: str) -> tuple[Presence | None, int]:
        """Return an agent's presence and its revision; None when it is not online."""
        message = self._read(schema.AGENTS, schema.presence_subject(client_id))
        if message is None:
            return None, 0
        if _DELETED in message.headers:
            return None, message.seq
        return codec.decode(message.data, message.subject, Presence), message.seq

    def list_presences(self) -> list[Presence]:
        """Return every agent that is online, by client id."""
        try:
            found = read_current(
                self.connection, schema.AGENTS, schema.presence_subject(">"), self.timeout, policy=LAST_OF_EACH
            )
        except (JetStreamError, NoReply) as exc:
            if isinstance(exc, JetStreamError) and exc.err_code == jetstream.STREAM_NOT_FOUND:
                return []
            raise unavailable("reading who is online", exc) from exc
        presences = [
            codec.decode(delivery.data, delivery.subject.decode(), Presence)
            for delivery in found
            if _DELETED not in codec.decode_headers(delivery.headers)
        ]
        return sorted(presences, key=lambda presence: presence.client_id)

    def remove_presence(self, client_id: str, expected: int) -> None:
        """Say that an agent has left."""
        headers = {_DELETED: "DEL", EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        subject = schema.presence_subject(client_id).encode()
        jetstream.publish(self.connection, subject, b"", self.timeout, headers)

    # ----------------------------------------------------------------------------------------------------------------

    def _put(self, subject: str, payload: bytes, expected: int) -> int:
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        try:
            return jetstream.publish(self.connection, subject.encode(), payload, self.timeout, headers).seq
        except JetStreamError as exc:
            if exc.err_code in WRONG_LAST_SEQUENCE:
                raise Conflict(subject) from exc
            raise unavailable(f"writing {subject}", exc) from exc

    def _put_again(self, record: RequestRecord, subject: str, payload: bytes) -> RequestRecord:
        try:
            self._put(subject, payload, expected=0)
        except Conflict:
            return self.get_request(record.client_id, record.command_id) or record
        except NoReply as exc:
            raise unavailable("sending a command", exc) from exc
        return record

    def _read(self, stream: str, subject: str) -> StoredMessage | None:
        try:
            return jetstream.get_last(self.connection, stream, subject, self.timeout)
        except JetStreamError as exc:
            if exc.no_responders:
                return None  # no streams yet, so nothing in them
            raise unavailable(f"reading {subject}", exc) from exc
        except NoReply as exc:
            raise unavailable(f"reading {subject}", exc) from exc

    def _consumer_request(self, client_id: str) -> tuple[str, dict[str, Any]]:
        config = schema.consumer(client_id, self.options)
        subject = f"CONSUMER.CREATE.{schema.REQUESTS}.{config['name']}.{config['filter_subject']}"
        return subject, {"stream_name": schema.REQUESTS, "config": config, "action": ""}

    def _outcome(self, waiter: Waiter) -> Exception | None:
        try:
            _check(waiter)
            jetstream.parse_ack(waiter)
        except JetStreamError as exc:
            return Conflict(waiter.subject.decode()) if exc.err_code in WRONG_LAST_SEQUENCE else exc
        except LightLinkError as exc:
            return exc
        return None

    def _request_all(self, requests: list[tuple[bytes, bytes, Any]]) -> list[Waiter]:
        return self.connection.request_all(requests, self.timeout)


def read_status(data: bytes, subject: str) -> StatusRecord:
    """Return the status in a stored or republished message; raises DecodeError."""
    return codec.decode(data, subject, StatusRecord)


def _request(message: StoredMessage | None) -> RequestRecord | None:
    return None if message is None else codec.decode(message.data, message.subject, RequestRecord)


def _expecting(sequence: int) -> Callable[[float], bytes]:
    block = codec.encode_headers({EXPECTED_LAST_SUBJECT_SEQUENCE: str(sequence)})
    return lambda _: block


def _check(waiter: Waiter) -> None:
    if waiter.error is not None:
        raise waiter.error


def unavailable(operation: str, exc: Exception) -> StoreUnavailable:
    """Return the error for an operation that the store refused or did not answer."""
    unknown = isinstance(exc, NoReply) and exc.sent
    return StoreUnavailable(operation, str(exc), unknown)
