"""What a check is, and what checks read and write: JetStream as it is, without the parts of it that are judged."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import msgspec

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import InvalidOption
from lightlink.jetstream import api
from lightlink.jetstream.errors import STREAM_NOT_FOUND, JetStreamError
from lightlink.protocol import codec
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from lightlink.client import Client
    from lightlink.events.subscription import Subscription
    from lightlink.jetstream.api import StoredMessage

T = TypeVar("T")
RunT = TypeVar("RunT", bound=Callable[..., Any])

_POLL_SECONDS = 0.02


class Fault(Exception):
    """What a program under test does otherwise than the wire format says."""


class Skipped(Exception):
    """The program under test says that it does not do this."""


@attrs.frozen
class Step:
    """What a program under test is asked to do."""

    do: str
    args: dict[str, Any]


# A check that asks for steps: it yields each, is sent what the program reports, and raises Fault.
Script = Callable[["Wire"], Generator[Step, dict[str, Any], None]]


@attrs.frozen
class Check(Generic[RunT]):
    """A check, and the ``sentence`` of docs/wire.md that it holds a program to."""

    name: str
    sentence: str
    level: str
    run: RunT


class Checks(Generic[RunT]):
    """The checks of one kind of program, in order; ``@checks(name, sentence)`` adds one.

    ``prepare`` makes the streams that the format has, where they are not there.
    """

    def __init__(self, prepare: Callable[[Wire], None]) -> None:
        self.prepare = prepare
        self.all: list[Check[RunT]] = []

    def __call__(self, name: str, sentence: str, level: str = "must") -> Callable[[RunT], RunT]:
        """Return a decorator that adds a function as a check."""

        def add(run: RunT) -> RunT:
            self.all.append(Check(name, sentence, level, run))
            return run

        return add

    def named(self, names: Collection[str] | None) -> list[Check[RunT]]:
        """Return the checks with some names, None for all; raises InvalidOption."""
        unknown = set(names or ()) - {check.name for check in self.all}
        if unknown:
            raise InvalidOption("only", "there is no check of this name", min(unknown))
        return [check for check in self.all if names is None or check.name in names]


class Wire:
    """JetStream and core NATS as a stranger sees them; ``timeout`` is how many seconds something may take to show."""

    def __init__(self, client: Client, timeout: float) -> None:
        self.client = client
        self.timeout = timeout

    def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, None when there is none, or no such stream."""
        try:
            return api.get_last_written(self.client.connection, stream, subject, self.timeout)
        except JetStreamError as exc:
            if exc.err_code != STREAM_NOT_FOUND:
                raise
            return None

    def stored(self, stream: str, subject: str) -> StoredMessage:
        """Return the last message of a subject; raises Fault where there is none."""
        message = self.last(stream, subject)
        if message is None:
            raise Fault(f"nothing is stored on {subject} in the stream {stream}")
        return message

    def history(self, stream: str, subject: str) -> list[StoredMessage]:
        """Return all messages of a subject, the oldest first."""
        found: list[StoredMessage] = []
        while True:
            after = found[-1].seq + 1 if found else 1
            message = api.get_next(self.client.connection, stream, subject, after, self.timeout)
            if message is None:
                return found
            found.append(message)

    def put(
        self,
        stream: str,
        subject: str,
        body: Any,
        expected: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a message, bytes as they are and everything else as JSON; return its sequence.

        With ``expected`` it is stored only over that sequence of its subject.
        """
        block = dict(headers or {})
        if expected is not None:
            block[api.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(expected)
        data = body if isinstance(body, bytes) else codec.encode_json(body)
        return api.publish(self.client.connection, stream, subject.encode(), data, self.timeout, block).seq

    def publish(self, subject: str, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Publish, bytes as they are and everything else as JSON; on return the server has it."""
        data = body if isinstance(body, bytes) else codec.encode_json(body)
        lines = codec.encode_headers(dict(headers)) if headers else None
        self.client.connection.publish(subject.encode(), data, headers=lines)
        self.client.flush(self.timeout)

    def hear(self, subject: str) -> Subscription:
        """Return a subscription without a handler; on return the server has it."""
        heard = self.client.subscribe(subject, raw=True)
        self.client.flush(self.timeout)
        return heard

    def heard(self, subscription: Subscription, what: str) -> Any:
        """Return the next message of a subscription; raises Fault where none comes."""
        try:
            return subscription.get(timeout=self.timeout)
        except TimeoutError:
            raise Fault(f"{what} did not come within {self.timeout:g} s") from None

    def until(self, look: Callable[[], T | None], fault: str, timeout: float | None = None) -> T:
        """Return what ``look`` finds, asked until it is something; raises Fault when that takes too long."""
        limit = self.timeout if timeout is None else timeout
        deadline = Deadline(limit)
        while True:
            found = look()
            if found:
                return found
            if deadline.is_over:
                raise Fault(f"{fault} (waited {limit:g} s)")
            time.sleep(_POLL_SECONDS)


def fresh(kind: str) -> str:
    """Return a name that nobody has used: one token of a subject."""
    return f"{kind}-{new_id()[:8]}"


def need(holds: Any, fault: str) -> None:
    """Raise Fault unless something holds."""
    if not holds:
        raise Fault(fault)


def same(found: Any, expected: Any, what: str) -> None:
    """Raise Fault unless what was found is what was expected, also in its JSON type."""
    if msgspec.json.encode(found, order="sorted") != msgspec.json.encode(expected, order="sorted"):
        raise Fault(f"{what} is {shown(found)}, not {shown(expected)}")


def shown(value: Any) -> str:
    """Return a value as short JSON."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 100 else f"{text[:100]}..."


def read_json(data: bytes, what: str) -> Any:
    """Return what bytes hold as JSON; raises Fault."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as exc:
        raise Fault(f"{what} is not JSON: {exc}") from None


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """Return the object that bytes hold as JSON; raises Fault."""
    found = read_json(data, what)
    if not isinstance(found, dict):
        raise Fault(f"{what} is {shown(found)}, not an object")
    return found


def expected_of(message: StoredMessage) -> str | None:
    """Return over which sequence a message was stored, None where its writer did not say."""
    return message.headers.get(api.EXPECTED_LAST_SUBJECT_SEQUENCE)


# What programs report -----------------------------------------------------------------------------------------------


def result_of(outcome: dict[str, Any], what: str) -> Any:
    """Return the result that a program reports; raises Fault for an error."""
    if "result" not in outcome:
        raise Fault(f"{what} failed: {outcome.get('error', 'the report has neither a result nor an error')}")
    return outcome["result"]


def error_of(outcome: dict[str, Any], what: str) -> str:
    """Return the error that a program reports; raises Fault for a result."""
    if "error" not in outcome or "result" in outcome:
        raise Fault(f"{what} gave {shown(outcome.get('result'))}, not an error")
    return str(outcome["error"])


def as_base64(data: bytes) -> str:
    """Return bytes as the steps carry them."""
    return base64.b64encode(data).decode()


def from_base64(text: Any, what: str) -> bytes:
    """Return the bytes in a report; raises Fault."""
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise Fault(f"{what} is {shown(text)}, not base64") from None
