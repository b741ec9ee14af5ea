"""Show events as they pass: a stream of server-sent events with what anybody publishes on a subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from msgspec import UNSET, UnsetType

from lightlink.commands import model
from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.http.data.content import check_event, is_event, shown
from lightlink.http.views import stream
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from datetime import datetime

    from werkzeug.wrappers import Response

    from lightlink.connection.connection import Connection
    from lightlink.http.call import Call

# Nobody reads faster: of more in a turn, the rest is counted.
_TURN_SECONDS = 0.2
_TURN_EVENTS = 20
_KEPT = 1000
_KEPT_BYTES = 8 * 1024 * 1024


@attrs.frozen(kw_only=True, slots=False)
class PassedEvent:
    """An event that has passed. What is not JSON is ``text``."""

    at: datetime
    subject: str
    data: Any = UNSET
    text: str | UnsetType = UNSET


def tail_events(call: Call) -> Response:
    """Tell of events as they pass, of some of them where there are many."""
    call.check_unlimited("events")
    subject = subjects.subscribe_subject(call.query.subject)
    check_event(subject)
    call.take_seat()
    try:
        passing = _Passing(call.manager.client.connection, subject)
    except BaseException:
        call.app.room.leave()
        raise
    return stream.respond(call, passing.next, passing.close)


class _Passing:
    """What passes on a subject."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._queue = MessageQueue(_KEPT, _KEPT_BYTES)
        self._lost = 0
        self._route = connection.subscribe(subject, "", self._hear)

    def next(self) -> bytes:
        """Return the events of the next moment."""
        told: list[bytes] = []
        skipped, deadline = 0, instant_after(_TURN_SECONDS)
        while True:
            try:
                at, subject, data = self._queue.get(deadline)
            except (TimeoutError, Closed):
                break
            if len(told) < _TURN_EVENTS:
                told.append(_event(at, subject, data))
            else:
                skipped += 1
        skipped, self._lost = skipped + self._lost, 0
        if skipped:
            told.append(b'event: skipped\ndata: {"count":%d}\n\n' % skipped)
        return b"".join(told)

    def close(self) -> None:
        self._connection.session.unroute(self._route, 1.0)
        self._queue.close()

    def _hear(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        text = as_text(subject)
        # A wildcard reaches those too that are not for events.
        if is_event(text) and not self._queue.put((model.now(), text, data), len(data)):
            self._lost += 1


def _event(at: datetime, subject: str, data: bytes) -> bytes:
    passed = PassedEvent(at=at, subject=subject, **shown(data, "data"))
    return b"event: message\ndata: %b\n\n" % codec.encode_json(passed)
