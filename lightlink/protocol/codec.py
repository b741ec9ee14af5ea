"""Turn values into bytes and back: JSON bodies, the RPC envelopes and NATS headers.

The only module that knows JSON. ``bytes`` pass as they are; dataclasses, attrs classes, datetimes, UUIDs, sets and the
like are encoded as msgspec does. JSON knows no NaN or infinity: both are encoded as ``null``.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from lightlink.errors import DecodeError, EncodeError, InvalidName, InvalidOption
from lightlink.protocol.types import decode_own, encode_own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    # Headers as they are given to be sent: a name may have several values.
    HeaderMap: TypeAlias = Mapping[str, str | Sequence[str]]

T = TypeVar("T")

# Codes of an error reply, and the HTTP-like number each carries in the header Nats-Service-Error-Code (ADR-32).
METHOD_NOT_FOUND = "method_not_found"
INVALID_REQUEST = "invalid_request"
INVALID_ARGUMENTS = "invalid_arguments"
BUSY = "busy"
DEADLINE_EXCEEDED = "deadline_exceeded"
HANDLER_ERROR = "handler_error"
STATUS_OF_CODE = {
    METHOD_NOT_FOUND: 404,
    INVALID_REQUEST: 400,
    INVALID_ARGUMENTS: 400,
    BUSY: 429,
    DEADLINE_EXCEEDED: 504,
    HANDLER_ERROR: 500,
}

TIMEOUT_HEADER = "LightLink-Timeout-Ms"
CORRELATION_HEADER = "LightLink-Correlation-Id"
ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"

_VERSION = "NATS/1.0"
_HEADER_LINE = _VERSION.encode()
_NO_STATUS = _HEADER_LINE + b"\r\n"
_STATUS = re.compile(r"[0-9]{3}")
# Line ends, and half of a surrogate pair, which is no text.
_NOT_ONE_LINE = re.compile("[\r\n\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BINARY = (bytes, bytearray, memoryview)
_ENCODE_FAILURES = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_DECODE_FAILURES = (ValueError, RecursionError, msgspec.MsgspecError)


class Request(msgspec.Struct):
    """The body of an RPC request, its arguments still encoded."""

    id: str
    method: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Response(msgspec.Struct):
    """The body of an RPC response, its result still encoded."""

    success: bool
    id: str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    code: Any = None


class _OutgoingRequest(msgspec.Struct):
    id: str
    method: str
    args: Any


class _Success(msgspec.Struct):
    id: str
    result: Any
    success: bool = True


class _Failure(msgspec.Struct):
    id: str | None
    error: str
    code: str
    success: bool = False


class _Identified(msgspec.Struct):
    id: Any = None


_encoder = msgspec.json.Encoder(enc_hook=encode_own)
_decoder = msgspec.json.Decoder()
_request_decoder = msgspec.json.Decoder(Request)
_id_decoder = msgspec.json.Decoder(_Identified)
_response_decoder = msgspec.json.Decoder(Response)


def encode(value: Any, what: str = "the value", name: str | None = None) -> bytes:
    """Return the body for a value: bytes as they are, everything else as JSON.

    Raises EncodeError, which names ``what`` (and its ``name``, apart, as joining them takes longer than encoding), when
    JSON cannot carry the value.
    """
    if isinstance(value, _BINARY):
        return bytes(value)
    try:
        return _encoder.encode(value)
    except _ENCODE_FAILURES as exc:
        raise EncodeError(what if name is None else f"{what} {name!r}", str(exc)) from exc


def encode_json(value: Any, what: str = "the value") -> bytes:
    """Return a value as JSON, bytes included (as base64); raises EncodeError."""
    try:
        return _encoder.encode(value)
    except _ENCODE_FAILURES as exc:
        raise EncodeError(what, str(exc)) from exc


def encode_indented(value: Any) -> str:
    """Return a value as JSON for readers, which ends in a line end."""
    return msgspec.json.format(encode_json(value), indent=2).decode() + "\n"


@overload
def decode(data: bytes, subject: str) -> Any: ...
@overload
def decode(data: bytes, subject: str, as_type: type[T]) -> T: ...
def decode(data: bytes, subject: str, as_type: Any = Any) -> Any:
    """Return the value in a JSON body, converted to ``as_type`` when given.

    Raises DecodeError, which carries the subject and the first bytes.
    """
    try:
        if as_type is Any:
            return _decoder.decode(data)
        return msgspec.json.decode(data, type=as_type, dec_hook=decode_own)
    except _DECODE_FAILURES as exc:
        raise DecodeError(subject, str(exc) or type(exc).__name__, data[:64]) from exc


def decoder(as_type: Any) -> Callable[[bytes, str], Any]:
    """Return a function like `decode` that converts to ``as_type``; raises TypeError for a type that cannot be."""
    decode_typed = _decoder.decode if as_type is Any else msgspec.json.Decoder(as_type, dec_hook=decode_own).decode

    def decode_or_explain(data: bytes, subject: str) -> Any:
        try:
            return decode_typed(data)
        except _DECODE_FAILURES as exc:
            raise DecodeError(subject, str(exc) or type(exc).__name__, data[:64]) from exc

    return decode_or_explain


def encode_request(request_id: str, method: str, args: Any) -> bytes:
    """Return the body of an RPC request; raises EncodeError."""
    return encode_json(_OutgoingRequest(request_id, method, args), f"the arguments of {method!r}")


def decode_request(data: bytes, subject: str) -> Request:
    """Return the envelope in a request's body; raises DecodeError."""
    try:
        return _request_decoder.decode(data)
    except _DECODE_FAILURES as exc:
        raise DecodeError(subject, str(exc) or type(exc).__name__, data[:64]) from exc


def encode_success(request_id: str, result: Any) -> bytes:
    """Return the body of a reply that carries a result; raises EncodeError."""
    return encode_json(_Success(request_id, result), "the result")


def encode_failure(request_id: str | None, code: str, error: str) -> bytes:
    """Return the body of a reply that carries an error."""
    return _encoder.encode(_Failure(request_id, error.encode("utf-8", "replace").decode(), code))


def decode_response(data: bytes, subject: str) -> Response:
    """Return the envelope in a response's body; raises DecodeError."""
    try:
        return _response_decoder.decode(data)
    except _DECODE_FAILURES as exc:
        raise DecodeError(subject, str(exc) or type(exc).__name__, data[:64]) from exc


def peek_request_id(data: bytes) -> str | None:
    """Return the id in a body that may not be an envelope, to echo it in an error reply; None if there is none."""
    try:
        request_id = _id_decoder.decode(data).id
    except _DECODE_FAILURES:
        return None
    return request_id if isinstance(request_id, str) else None


class Headers(dict[str, str]):
    """Headers as they came: of a name given several times its last value, and `values_of` it all of them."""

    __slots__ = ("_repeated",)

    def __init__(self, given: Mapping[str, str | Sequence[str]] = MappingProxyType({})) -> None:
        self._repeated: dict[str, list[str]] = {}
        for name, value in given.items():
            for each in (value,) if isinstance(value, str) else value:
                self.add(name, each)

    def add(self, name: str, value: str) -> None:
        """Add a value behind those that a name has."""
        if name in self:
            self._repeated.setdefault(name, [self[name]]).append(value)
        self[name] = value

    def values_of(self, name: str) -> list[str]:
        """Return all values of a name, in the order in which they were sent; none for a name that is not there."""
        if name not in self:
            return []
        return list(self._repeated.get(name, (self[name],)))


def header_values(headers: Mapping[str, str], name: str) -> list[str]:
    """Return all values of a name among headers that came, or were made by hand."""
    if isinstance(headers, Headers):
        return headers.values_of(name)
    return [headers[name]] if name in headers else []


def checked_headers(headers: HeaderMap) -> dict[str, str | list[str]]:
    """Return message headers that NATS can carry; raises InvalidName for a name or value that it cannot (ADR-4).

    A name may have several values, in a list; one with none is left out.
    """
    if not hasattr(headers, "items"):
        raise InvalidOption("headers", "must map names to values", type(headers).__name__)
    checked: dict[str, str | list[str]] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidName("header name", name, "use printable ASCII without spaces or separators")
        values = value if isinstance(value, (list, tuple)) else (value,)
        for each in values:
            if not isinstance(each, str) or _NOT_ONE_LINE.search(each):
                raise InvalidName("header value", each, f"the value of {name} must be text on one line")
        if values:
            checked[name] = values[0] if len(values) == 1 else list(values)
    return checked


def encode_headers(headers: Mapping[str, str | list[str]]) -> bytes:
    """Return a NATS header block (ADR-4); the caller has checked names and values."""
    lines = "".join(
        f"{name}: {value}\r\n" if isinstance(value, str) else "".join(f"{name}: {each}\r\n" for each in value)
        for name, value in headers.items()
    )
    return b"%b\r\n%b\r\n" % (_HEADER_LINE, lines.encode())


def decode_headers(block: bytes | None) -> Headers:
    """Return the headers of a block (ADR-4); of a name given several times, the last value counts.

    What a server adds to a stored message's headers stands last. The first line is not among them: see
    `decode_status`. Malformed lines are ignored.
    """
    headers = Headers()
    if block:
        for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
            name, separator, value = line.partition(":")
            if separator:
                headers.add(name, value.strip(" \t"))
    return headers


def decode_status(block: bytes | None) -> tuple[str, str]:
    """Return (code, description) from the first line of a block, such as ``NATS/1.0 503 No Responders`` (ADR-4).

    Both are empty without one. Only a server writes there; a header named Status is its writer's.
    """
    if not block or block.startswith(_NO_STATUS):
        return "", ""
    first = block.partition(b"\r\n")[0].decode("utf-8", "replace")
    version, _, status = first.partition(" ")
    code, _, description = status.strip().partition(" ")
    return (code, description) if version == _VERSION and _STATUS.fullmatch(code) else ("", "")


def is_no_responders(data: bytes, headers: bytes | None) -> bool:
    """Tell whether a reply is the server's word that nobody listens on the subject (status 503, ADR-4)."""
    return not data and headers is not None and headers.startswith(b"NATS/1.0 503")
