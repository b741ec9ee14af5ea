"""Ask a service what any caller may ask, and compare what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.conformance.vectors import ServiceVector, Vectors, Verdict, difference, filled
from lightlink.errors import LightLinkError
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.client import Client
    from lightlink.connection.replies import Waiter


def judge_service(client: Client, service: str = "conformance", timeout: float = 5.0) -> Iterator[Verdict]:
    """Send each vector's request to a service, and yield what became of it.

    ``timeout`` is how many seconds each answer may take. Raises no error of the service: those are verdicts.
    """
    for vector in Vectors.load().services:
        yield Verdict(vector.name, vector.level, vector.why, _fault(client, vector, service, timeout))


def _fault(client: Client, vector: ServiceVector, service: str, timeout: float) -> str:
    names = {"{service}": service}
    subject = vector.subject.replace("{service}", service).encode()
    # Without any, as a client that knows no headers sends it.
    lines = codec.encode_headers(dict(vector.headers)) if vector.headers else None
    try:
        answer = client.connection.request(
            subject, vector.payload(), timeout, None if lines is None else lambda _: lines
        )
    except LightLinkError as error:
        return f"no answer: {error}"
    return _compared(filled(vector.reply, names), vector.reply_headers, answer)


def _compared(reply: Any, headers: dict[str, Any], answer: Waiter) -> str:
    if codec.is_no_responders(answer.data, answer.headers):
        return "no answer: nobody serves it (no responders)"
    try:
        found = msgspec.json.decode(answer.data)
    except msgspec.DecodeError as error:
        return f"the reply is not JSON: {error}"
    return difference(reply, found) or difference(headers, dict(codec.decode_headers(answer.headers)))
