"""Checks of events: what is published, heard, and stored in a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.conformance.checks import (
    Checks,
    Fault,
    Script,
    Step,
    Wire,
    as_base64,
    fresh,
    need,
    read_json,
    result_of,
    same,
)
from lightlink.jetstream import api

if TYPE_CHECKING:
    from collections.abc import Generator

    Steps = Generator[Step, dict[str, Any], None]

EVENTS: Checks[Script] = Checks(prepare=lambda wire: None)  # noqa: ARG005 - events need no stream

VALUE: dict[str, Any] = {
    "user_id": "U001",
    "text": 'Grüße, 你好, "quoted"\n',
    "list": [1, 2.5, True, None, {"deep": []}],
}

_BODY = "Any subject; the body is JSON, or bytes as they are."
_GOES_ON = "A subscriber that gets a body it cannot read goes on with the next."
_HEADERS = "Headers are the publisher's own, and a subscriber ignores those it does not know."
_ID = "`Nats-Msg-Id` is `<subject>|<id>`, as a stream knows ids whatever the subject."


@EVENTS("publishes a value as JSON", _BODY)
def publishes_json(wire: Wire) -> Steps:
    """Have a value published."""
    subject = fresh("events")
    with wire.hear(subject) as heard:
        result_of((yield Step("publish", {"subject": subject, "data": VALUE})), "publish")
        same(read_json(wire.heard(heard, "the event").data, "the body"), VALUE, "the body")


@EVENTS("publishes bytes as they are", _BODY)
def publishes_bytes(wire: Wire) -> Steps:
    """Have bytes published that are no text."""
    subject, data = fresh("events"), bytes(range(256))
    with wire.hear(subject) as heard:
        result_of((yield Step("publish_bytes", {"subject": subject, "base64": as_base64(data)})), "publish_bytes")
        found = wire.heard(heard, "the event").data
        need(found == data, f"the body begins with {found[:16]!r}, not {data[:16]!r}")


@EVENTS("hears values in their order", _BODY)
def hears_json(wire: Wire) -> Steps:
    """Publish what the program is to hear."""
    yield from _hears(wire, [VALUE, None, "text", [1]], [VALUE, None, "text", [1]])


@EVENTS("hears values with headers it does not know", _HEADERS)
def hears_headers(wire: Wire) -> Steps:
    """Publish an event with headers."""
    yield from _hears(wire, [{"n": 1}], [{"n": 1}], {"Tenant": "acme", "LightLink-Correlation-Id": "abc"})


@EVENTS("goes on behind a body that is not JSON", _GOES_ON)
def goes_on(wire: Wire) -> Steps:
    """Publish an event that cannot be read between two that can."""
    yield from _hears(wire, [{"n": 1}, b"{no json", {"n": 2}], [{"n": 1}, {"n": 2}])


@EVENTS("stores an event under its id", _ID)
def stores_under_id(wire: Wire) -> Steps:
    """Have an event stored in a stream."""
    with _Stream(wire) as stream:
        subject = f"{stream.name}.new"
        result_of((yield Step("store", {"subject": subject, "data": {"n": 1}, "event_id": "order-7"})), "store")
        message = wire.stored(stream.name, subject)
        same(read_json(message.data, "the body"), {"n": 1}, "the body")
        same(message.headers.get("Nats-Msg-Id"), f"{subject}|order-7", "the header Nats-Msg-Id")


def _hears(wire: Wire, sent: list[Any], expected: list[Any], headers: dict[str, str] | None = None) -> Steps:
    subject = fresh("events")
    result_of((yield Step("subscribe", {"subject": subject})), "subscribe")
    for each in sent:
        wire.publish(subject, each, headers)
    outcome = yield Step("received", {"subject": subject, "count": len(expected)})
    same(result_of(outcome, "received"), expected, "what it heard")


class _Stream:
    """A stream in memory, deleted at the end."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.name = fresh("conformance")

    def __enter__(self) -> _Stream:
        config = {"name": self.name, "subjects": [f"{self.name}.>"], "storage": "memory"}
        if not api.create_stream(self._wire.client.connection, config, self._wire.timeout):
            raise Fault(f"the stream {self.name} is there already")
        return self

    def __exit__(self, *_: object) -> None:
        api.delete_stream(self._wire.client.connection, self.name, self._wire.timeout)
