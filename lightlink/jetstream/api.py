"""JetStream in requests: store a message, read one back, make a stream, ask the API (ADR-1, ADR-8, ADR-31).

Everything goes over `Connection.request`, so a request whose deadline passed while disconnected is never sent later.
Each function raises JetStreamError when the server refuses, NoReply when no answer came (its ``sent`` tells whether the
request has left), PermissionDenied, PayloadTooLarge and ClosedError. `lightlink.jetstream.read` reads many messages.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

import attrs
import msgspec

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import DecodeError, PayloadTooLarge
from lightlink.jetstream.answers import (
    ConsumerNames,
    MessageAnswer,
    PurgeAnswer,
    RawStreamInfo,
    StreamInfo,
    StreamNames,
    StreamPage,
    parse_time,
)
from lightlink.jetstream.errors import (
    JETSTREAM_DISABLED,
    MESSAGE_DELETE_FAILED,
    NO_MESSAGE,
    NO_RESPONDERS,
    SEQUENCE_NOT_FOUND,
    STREAM_NAME_IN_USE,
    STREAM_NOT_FOUND,
    TOO_LARGE,
    WRONG_STREAM,
    JetStreamError,
)
from lightlink.jetstream.retry import while_electing
from lightlink.options import DEFAULT_JETSTREAM_API
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import publish_subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import Waiter

T = TypeVar("T")
_log = logging.getLogger("lightlink")

# By how much, and down to how many bytes, a bound is lowered that the server has no room for.
_SHRINK = 8
_LEAST_BOUND = 1024 * 1024

# Header names (ADR-8, ADR-31, ADR-43).
EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
ROLLUP = "Nats-Rollup"
TTL = "Nats-TTL"


class PubAck(msgspec.Struct):
    """The server's word that a message is stored, as message ``seq`` of ``stream``.

    It comes before the disk's fsync unless the server runs with ``sync_interval: always``.
    """

    stream: str
    seq: int
    duplicate: bool = False
    domain: str = ""


class _Problem(msgspec.Struct):
    code: int = 500
    err_code: int = 0
    description: str = "the server gave no reason"


class _Answer(msgspec.Struct):
    error: _Problem | None = None


@attrs.frozen
class StoredMessage:
    """A message in a stream; ``seq`` is its place there, ``time`` when it was stored (UTC), as the server wrote it."""

    subject: str
    seq: int
    data: bytes
    headers: dict[str, str]
    time: str

    @property
    def created(self) -> datetime:
        """When it was stored; raises DecodeError where the server has not said so."""
        try:
            return parse_time(self.time)
        except ValueError:
            raise DecodeError(self.subject, f"a malformed time: {self.time[:64]!r}", self.data[:64]) from None


_ack_decoder = msgspec.json.Decoder(PubAck)
_answer_decoder = msgspec.json.Decoder(_Answer)


# Subjects -----------------------------------------------------------------------------------------------------------


def api_subject(connection: Connection, rest: str) -> bytes:
    """Return the subject to ask JetStream's API on, in the domain or behind the import that the options name."""
    return f"{connection.options.jetstream_api}.{rest}".encode()


def write_subject(connection: Connection, subject: str) -> bytes:
    """Return where to publish a message that a stream is to store on ``subject``.

    Buckets elsewhere are written below the prefix of their API, which the server maps back (ADR-8).
    """
    prefix = connection.options.jetstream_api
    if prefix == DEFAULT_JETSTREAM_API or not subject.startswith(subjects.KEYS):
        return subject.encode()
    return f"{prefix}.{subject}".encode()


# Storing ------------------------------------------------------------------------------------------------------------


def publish(
    connection: Connection,
    stream: str,
    subject: bytes,
    payload: bytes,
    timeout: float,
    headers: Mapping[str, str] | None = None,
) -> PubAck:
    """Store a message in a stream, by a subject that it listens on, and return the server's acknowledgement.

    With the header Nats-Expected-Last-Subject-Sequence it is stored only if the last message of its subject has that
    sequence (0: there is none); otherwise the error's ``err_code`` is in `WRONG_LAST_SEQUENCE`. ``timeout`` in seconds.
    """
    if not headers:
        return parse_ack(connection, connection.request(subject, payload, timeout), stream)
    block = checked_block(connection, subject, payload, headers)
    return parse_ack(connection, connection.request(subject, payload, timeout, lambda _: block), stream)


def checked_block(connection: Connection, subject: bytes, payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Return the header block for a message; raises PayloadTooLarge when the two together are too large."""
    block = codec.encode_headers(dict(headers))
    # The server counts the headers, and hangs up on a message over its limit.
    if len(payload) + len(block) > connection.max_payload:
        raise PayloadTooLarge(subject.decode(), len(payload) + len(block), connection.max_payload)
    return block


def parse_ack(connection: Connection, waiter: Waiter, stream: str | None) -> PubAck:
    """Return the acknowledgement in the reply to a message stored in ``stream`` (None: in any), or raise its error.

    Also a JetStreamError (WRONG_STREAM) when another stream stored it: readers of ``stream`` will not find it.
    """
    try:
        ack = _ack_decoder.decode(waiter.data)
    except (ValueError, msgspec.MsgspecError):
        raise_problem(waiter)
        raise DecodeError(waiter.subject.decode(), "not an acknowledgement", waiter.data[:64]) from None
    if not ack.seq:  # a refusal may name the stream, and then has the sequence 0
        raise_problem(waiter)
    if stream is not None and ack.stream != stream:
        reason = f"stream {ack.stream!r} captures this subject and has stored the message, not {stream!r}"
        raise JetStreamError(waiter.subject.decode(), 400, WRONG_STREAM, reason)
    domain = connection.options.jetstream_domain
    if domain is not None and ack.domain != domain:
        reason = f"the stream {stream!r} of domain {ack.domain!r} has stored the message, not that of {domain!r}"
        raise JetStreamError(waiter.subject.decode(), 400, WRONG_STREAM, reason)
    return ack


# Reading one message ------------------------------------------------------------------------------------------------


def get_last(connection: Connection, stream: str, subject: str, timeout: float) -> StoredMessage | None:
    """Return the last message of a subject, None if there is none. The stream must allow direct gets (ADR-31)."""
    return parse_stored(connection.request(api_subject(connection, f"DIRECT.GET.{stream}.{subject}"), b"", timeout))


def answers_every_direct_get(connection: Connection) -> bool:
    """Tell whether the server answers a direct get from a stream that is not there; before 2.11 nobody does.

    Of a server in another domain, or behind an import, nothing is known.
    """
    return connection.options.jetstream_api == DEFAULT_JETSTREAM_API and connection.session.nc.server_version >= (2, 11)


def get_message(connection: Connection, stream: str, seq: int, timeout: float) -> StoredMessage | None:
    """Return the message with a sequence, None if there is none. The stream must allow direct gets (ADR-31)."""
    body = codec.encode_json({"seq": seq})
    return parse_stored(connection.request(api_subject(connection, f"DIRECT.GET.{stream}"), body, timeout))


def find_last(connection: Connection, stream: str, pattern: str, timeout: float) -> StoredMessage | None:
    """Return the last message whose subject matches a pattern, None if there is none."""
    body = codec.encode_json({"last_by_subj": pattern})
    return parse_stored(connection.request(api_subject(connection, f"DIRECT.GET.{stream}"), body, timeout))


def parse_stored(waiter: Waiter) -> StoredMessage | None:
    """Return the message in the reply to a direct get, None if there is none, or raise the error in it."""
    headers = codec.decode_headers(waiter.headers)
    status, description = codec.decode_status(waiter.headers)
    if status == "404":
        return None
    if status or "Nats-Sequence" not in headers:
        raise_problem(waiter)
        raise JetStreamError(waiter.subject.decode(), int(status or 500), 0, description or "no message in the reply")
    subject, seq = headers.get("Nats-Subject", ""), headers["Nats-Sequence"]
    if not subject or not seq.isascii() or not seq.isdecimal():
        raise DecodeError(waiter.subject.decode(), "not a stored message", waiter.data[:64])
    return StoredMessage(subject, int(seq), waiter.data, headers, headers.get("Nats-Time-Stamp", ""))


def get_last_written(connection: Connection, stream: str, subject: str, timeout: float) -> StoredMessage | None:
    """Return the last message of a subject, None if there is none, from the stream's leader.

    So what was acknowledged is seen. Needs no direct gets. Raises JetStreamError (STREAM_NOT_FOUND) when
    there is no such stream.
    """
    return _get_from_leader(connection, stream, {"last_by_subj": subject}, timeout)


def get_next(connection: Connection, stream: str, subject: str, seq: int, timeout: float) -> StoredMessage | None:
    """Return the first message of a subject from sequence ``seq`` on, None if there is none; from the leader."""
    return _get_from_leader(connection, stream, {"seq": seq, "next_by_subj": subject}, timeout)


def get_written(connection: Connection, stream: str, seq: int, timeout: float) -> StoredMessage | None:
    """Return the message with a sequence, None if there is none; as `get_last_written` does."""
    return _get_from_leader(connection, stream, {"seq": seq}, timeout)


def _get_from_leader(
    connection: Connection, stream: str, request: Mapping[str, Any], timeout: float
) -> StoredMessage | None:
    payload = codec.encode_json(request)

    def ask(limit: float) -> StoredMessage | None:
        return parse_written(connection.request(api_subject(connection, f"STREAM.MSG.GET.{stream}"), payload, limit))

    return while_electing(ask, timeout, repeatable=True)


def parse_written(waiter: Waiter) -> StoredMessage | None:
    """Return the message in the answer of a stream's leader, None if there is none, or raise the error in it."""
    try:
        raise_problem(waiter)
    except JetStreamError as exc:
        if exc.err_code == NO_MESSAGE:
            return None
        raise
    message = codec.decode(waiter.data, waiter.subject.decode(), MessageAnswer).message
    return StoredMessage(message.subject, message.seq, message.data, codec.decode_headers(message.hdrs), message.time)


# The API ------------------------------------------------------------------------------------------------------------


@overload
def api(connection: Connection, subject: str, body: Any, timeout: float) -> dict[str, Any]: ...
@overload
def api(connection: Connection, subject: str, body: Any, timeout: float, as_type: type[T]) -> T: ...
def api(connection: Connection, subject: str, body: Any, timeout: float, as_type: Any = dict) -> Any:
    """Ask ``$JS.API.<subject>`` and return the answer, as a dictionary or converted to ``as_type``.

    ``body`` is the request as JSON will carry it, None for none; it may be made twice. Durations are in nanoseconds.
    """
    return while_electing(lambda limit: api_once(connection, subject, body, limit, as_type), timeout, repeatable=True)


def api_once(connection: Connection, subject: str, body: Any, timeout: float, as_type: type[T]) -> T:
    """Ask as `api` does, but send one request: for what is to be asked otherwise when no answer comes."""
    payload = b"" if body is None else codec.encode_json(body, f"the request to {subject}")
    waiter = connection.request(api_subject(connection, subject), payload, timeout)
    raise_problem(waiter)
    return codec.decode(waiter.data, waiter.subject.decode(), as_type)


def create_stream(connection: Connection, config: Mapping[str, Any], timeout: float) -> bool:
    """Make a stream unless there is one of that name, which is then left as it is; False tells that it is otherwise.

    Safe when two processes do it at the same instant. ``config`` is a stream configuration as the API takes it.
    """
    try:
        api(connection, f"STREAM.CREATE.{config['name']}", dict(config), timeout)
    except JetStreamError as exc:
        if exc.err_code == STREAM_NAME_IN_USE:
            return False
        raise
    return True


def create_bounded_stream(connection: Connection, config: Mapping[str, Any], timeout: float) -> bool:
    """Make a stream as `create_stream` does, smaller than ``config`` says where the server has less room.

    For a bound that nobody asked for: where there is no room for a small one either, there is none.
    """
    deadline = Deadline(timeout)
    room: int = config["max_bytes"]
    while room > 0:
        try:
            return create_stream(connection, {**config, "max_bytes": room}, deadline.as_timeout())
        except JetStreamError as exc:
            if exc.err_code not in TOO_LARGE:
                raise
            _log.info("lightlink: no room for %d bytes of stream %s; it is made smaller", room, config["name"])
        room = room // _SHRINK if room >= _SHRINK * _LEAST_BOUND else -1
    return create_stream(connection, {**config, "max_bytes": -1}, deadline.as_timeout())


def stream_info(connection: Connection, stream: str, timeout: float) -> StreamInfo | None:
    """Return what the server says of a stream, None if there is no such stream."""
    return _of_stream(connection, stream, timeout, StreamInfo)


def stream_config(connection: Connection, stream: str, timeout: float) -> dict[str, Any] | None:
    """Return all of a stream's configuration as the server has it, None if there is no such stream."""
    info = _of_stream(connection, stream, timeout, RawStreamInfo)
    return None if info is None else info.config


def _of_stream(connection: Connection, stream: str, timeout: float, as_type: type[T]) -> T | None:
    try:
        return api(connection, f"STREAM.INFO.{stream}", None, timeout, as_type)
    except JetStreamError as exc:
        if exc.err_code == STREAM_NOT_FOUND:
            return None
        raise


def streams_on(connection: Connection, pattern: str, timeout: float) -> list[StreamInfo]:
    """Return what the server says of each stream with subjects that a pattern covers; it answers in pages."""
    deadline = Deadline(timeout)
    found: list[StreamInfo] = []
    while True:
        asked = {"subject": pattern, "offset": len(found)}
        page = api(connection, "STREAM.LIST", asked, deadline.as_timeout(), StreamPage)
        found += page.streams or []
        if not page.streams or len(found) >= page.total:
            return found


def stream_names(connection: Connection, pattern: str, timeout: float) -> list[str]:
    """Return the names of the streams with subjects that a pattern covers, of all for an empty one, in order."""
    deadline = Deadline(timeout)
    found: list[str] = []
    while True:
        asked = {"offset": len(found), **({"subject": pattern} if pattern else {})}
        page = api(connection, "STREAM.NAMES", asked, deadline.as_timeout(), StreamNames)
        found += page.streams or []
        if not page.streams or len(found) >= page.total:
            return sorted(found)


def parse_names(waiter: Waiter) -> list[str]:
    """Return the names in the reply to STREAM.NAMES, or raise the error in it."""
    raise_problem(waiter)
    return codec.decode(waiter.data, waiter.subject.decode(), StreamNames).streams or []


def delete_stream(connection: Connection, stream: str, timeout: float) -> None:
    """Remove a stream with all that it holds."""
    api(connection, f"STREAM.DELETE.{stream}", {}, timeout)


def subjects_of(connection: Connection, stream: str, pattern: str, timeout: float) -> set[str]:
    """Return the subjects that match a pattern and of which a stream holds a message, all as of one instant.

    Of more than 100,000 the server tells them in pages, which are of an instant each.
    """
    deadline = Deadline(timeout)
    found: set[str] = set()
    offset, total = 0, 1
    while offset < total:
        request = {"subjects_filter": pattern, "offset": offset}
        limit = deadline.as_timeout()
        answer = api(connection, f"STREAM.INFO.{stream}", request, limit, StreamInfo)
        page = answer.state.subjects or {}
        found.update(page)
        total = answer.total if page else 0
        offset += len(page)
    return found


def consumer_names(connection: Connection, stream: str, timeout: float) -> set[str]:
    """Return the names of all consumers of a stream, read in pages that are of an instant each."""
    deadline = Deadline(timeout)
    found: set[str] = set()
    offset, total = 0, 1
    while offset < total:
        limit = deadline.as_timeout()
        answer = api(connection, f"CONSUMER.NAMES.{stream}", {"offset": offset}, limit, ConsumerNames)
        page = answer.consumers or []
        found.update(page)
        total = answer.total if page else 0
        offset += len(page)
    return found


def purge(connection: Connection, stream: str, subject: str, timeout: float) -> int:
    """Remove every message of one subject from a stream; return how many there were.

    A wildcard is refused (InvalidName): in a subject that came from elsewhere it would take others' messages along.
    """
    publish_subject(subject)
    return api(connection, f"STREAM.PURGE.{stream}", {"filter": subject}, timeout, PurgeAnswer).purged


def purge_up_to(connection: Connection, stream: str, subject: str, seq: int, timeout: float) -> int:
    """Remove the messages of one subject up to and with a sequence from a stream; return how many there were."""
    publish_subject(subject)
    body = {"filter": subject, "seq": seq + 1}
    return api(connection, f"STREAM.PURGE.{stream}", body, timeout, PurgeAnswer).purged


def delete_message(connection: Connection, stream: str, seq: int, timeout: float) -> None:
    """Remove a message from a stream; without effect when it is not there."""
    try:
        api(connection, f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True}, timeout)
    except JetStreamError as exc:
        if exc.err_code not in (SEQUENCE_NOT_FOUND, MESSAGE_DELETE_FAILED):
            raise


def count_messages(connection: Connection, stream: str, subject: str, timeout: float) -> int:
    """Return how many messages of a subject a stream holds."""
    answer = api(connection, f"STREAM.INFO.{stream}", {"subjects_filter": subject}, timeout, StreamInfo)
    return (answer.state.subjects or {}).get(subject, 0)


def raise_problem(waiter: Waiter) -> None:
    """Raise the error in a reply, if there is one."""
    subject = waiter.subject.decode()
    if codec.is_no_responders(waiter.data, waiter.headers):
        reason = f"nobody listens on {subject}"
        if subject.startswith("$JS."):
            reason = "no JetStream on this server or for this account, or no such stream or consumer"
        raise JetStreamError(subject, NO_RESPONDERS, 0, reason)
    if not waiter.data.startswith(b"{"):
        return
    try:
        problem = _answer_decoder.decode(waiter.data).error
    except (ValueError, msgspec.MsgspecError):
        return
    if problem is not None:
        description = problem.description
        if problem.err_code in JETSTREAM_DISABLED:
            description = f"JetStream is not enabled on this server or for this account ({description})"
        raise JetStreamError(subject, problem.code, problem.err_code, description)


# Times --------------------------------------------------------------------------------------------------------------


def nanoseconds(seconds: float) -> int:
    """Return a duration as the API takes it."""
    return round(seconds * 1_000_000_000)
