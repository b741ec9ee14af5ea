"""What a reply to a call says: its result, or the error in it, in our envelope or in headers alone (ADR-32)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lightlink.errors import (
    DeadlineExceeded,
    DecodeError,
    HandlerError,
    InvalidArguments,
    InvalidRequest,
    MethodNotFound,
    RemoteError,
    ServiceBusy,
    ServiceUnavailable,
)
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    # Reads a result, given its subject for the error.
    Reader = Callable[[bytes, str], Any]

_ERROR_OF_CODE: dict[str, type[RemoteError]] = {
    codec.METHOD_NOT_FOUND: MethodNotFound,
    codec.INVALID_REQUEST: InvalidRequest,
    codec.INVALID_ARGUMENTS: InvalidArguments,
    codec.BUSY: ServiceBusy,
    codec.DEADLINE_EXCEEDED: DeadlineExceeded,
    codec.HANDLER_ERROR: HandlerError,
}


def read_result(
    service: str, method: str, request_id: str, subject: str, data: bytes, headers: bytes | None, read: Reader
) -> Any:
    """Return the result in a reply, or raise the error in it."""
    if codec.is_no_responders(data, headers):
        raise ServiceUnavailable(service, method)
    try:
        response = codec.decode_response(data, subject)
    except DecodeError:
        foreign = _foreign_error(service, method, headers)
        if foreign is None:
            raise
        raise foreign from None
    # Peers leave the id out of errors, or empty; nobody else can answer on this inbox, which none can guess.
    if response.id != request_id and (response.success or response.id):
        raise DecodeError(subject, f"the reply is to request {response.id!r}, not to {request_id!r}", data[:64])
    if response.success:
        return read(bytes(response.result), subject)
    raise _remote_error(service, method, response)


class _ValidationError(msgspec.Struct):
    """What peers send as the result of a call whose arguments they refuse, beside the error's text."""

    type: Literal["validation_error"]
    parameter_name: str = ""
    expected_type: str = ""
    actual_type: str = ""
    message: str = ""

    def __str__(self) -> str:
        told = self.message or f"expected {self.expected_type}, got {self.actual_type}"
        return f"argument {self.parameter_name!r}: {told}" if self.parameter_name else told


def _remote_error(service: str, method: str, response: codec.Response) -> RemoteError:
    text, code = response.error if isinstance(response.error, str) else str(response.error), response.code
    if not isinstance(code, str):
        # Peers in other languages send no code; this one text is fixed by the wire format, its capital is not.
        code = codec.METHOD_NOT_FOUND if text[:16].lower() == "method not found" else ""
        with contextlib.suppress(DecodeError):
            detail = codec.decode(bytes(response.result), "", _ValidationError)
            code, text = codec.INVALID_ARGUMENTS, str(detail)
    return _ERROR_OF_CODE.get(code, RemoteError)(service, method, code, text)


def _foreign_error(service: str, method: str, headers: bytes | None) -> RemoteError | None:
    """Return the error of a service that answers as ADR-32 says, with headers and without our envelope."""
    given = codec.decode_headers(headers)
    if codec.ERROR_HEADER not in given:
        return None
    return RemoteError(service, method, given.get(codec.ERROR_CODE_HEADER, ""), given[codec.ERROR_HEADER])
