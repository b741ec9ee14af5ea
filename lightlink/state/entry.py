"""A value as it stands, and a change of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import attrs

from lightlink.errors import InvalidOption
from lightlink.protocol import codec, html
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lightlink.jetstream.api import StoredMessage
    from lightlink.jetstream.read import Delivery

T = TypeVar("T")
Operation = Literal["put", "delete", "purge"]

OPERATION_HEADER = "KV-Operation"
_MARKER_HEADER = "Nats-Marker-Reason"
# What a writer says (ADR-8), and what the server says where it removed the last value itself (ADR-43).
_OPERATIONS: dict[str, Operation] = {"DEL": "delete", "PURGE": "purge"}
_MARKERS: dict[str, Operation] = {"MaxAge": "purge", "Purge": "purge", "Remove": "delete"}


@attrs.frozen
class StateEntry(Generic[T]):
    """A value with its revision, the base for `StateBucket.update`, and when it was written (UTC)."""

    key: str
    value: T
    revision: int
    created: datetime

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        return html.facts(self.key, attrs.asdict(self, recurse=False))


@attrs.frozen
class StateChange(Generic[T]):
    """A value written or removed. ``operation`` is ``put``, ``delete`` or ``purge``; only a ``put`` has a value.

    A value whose time ran out is a ``purge``, if the bucket was made with ``marker_ttl``; else nothing tells of it.
    """

    key: str
    value: T | None
    revision: int
    operation: Operation
    created: datetime


def operation_of(headers: Mapping[str, str]) -> Operation:
    """Return what a stored message did to its key."""
    marker = headers.get(_MARKER_HEADER)
    if marker is not None:
        return _MARKERS.get(marker, "purge")
    return _OPERATIONS.get(headers.get(OPERATION_HEADER, ""), "put")


def operation_in(block: bytes | None) -> Operation:
    """Return what a message with this header block did to its key."""
    return "put" if block is None else operation_of(codec.decode_headers(block))


class ValueCodec(Generic[T]):
    """Turns the values of a bucket into bytes and back.

    They are JSON, converted to ``value_type``. With ``bytes`` as the type they are bytes as they are. Raises
    InvalidOption for a type that nothing can be converted to.
    """

    def __init__(self, value_type: Any) -> None:
        self._type = value_type
        try:
            self._decode = codec.decoder(Any if value_type is bytes else value_type)
        except TypeError as exc:
            raise InvalidOption("value_type", f"cannot be converted to: {exc}", value_type) from exc

    def encode(self, key: str, value: Any) -> bytes:
        """Return the bytes of a value; bytes count as encoded already. Raises EncodeError."""
        return codec.encode(value, "the value of", key)

    def decode(self, data: bytes, subject: str) -> T:
        """Return the value in a message's bytes; raises DecodeError."""
        if self._type is bytes:
            return data  # type: ignore[return-value]
        value: T = self._decode(data, subject)
        return value

    def entry(self, key: str, message: StoredMessage) -> StateEntry[T]:
        """Return what a stored message says; raises DecodeError."""
        return StateEntry(key, self.decode(message.data, message.subject), message.seq, message.created)

    def change(self, prefix: str, delivery: Delivery) -> StateChange[T]:
        """Return what a message says; ``prefix`` is its subject up to the key. Raises DecodeError."""
        subject = as_text(delivery.subject)
        operation = operation_in(delivery.headers)
        value = self.decode(delivery.data, subject) if operation == "put" else None
        return StateChange(subject[len(prefix) :], value, delivery.seq, operation, delivery.created)
