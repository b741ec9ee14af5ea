"""Server-sent events of every change of every command (WHATWG HTML, section 9.2).

The console follows `events`, which tells of runs and of the link to NATS too.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from werkzeug.exceptions import BadRequest, Unauthorized
from werkzeug.wrappers import Response

from lightlink.commands.store.changes import Changes
from lightlink.concurrency.deadline import Deadline
from lightlink.errors import LightLinkError
from lightlink.http.views.representations import command_view
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.commands.manager.fanout import Watcher
    from lightlink.commands.model import Command
    from lightlink.commands.store.changes import Change
    from lightlink.http.call import Call

_log = logging.getLogger("lightlink")

MIMETYPE = "text/event-stream"
# How soon a client that is gone is noticed, where the WSGI server can tell.
_LOOK_SECONDS = 1.0
# So that the client sees at once that it is connected, before there is anything to tell; it comes again after 2 s.
_GREETING = b"retry: 2000\n: connected\n\n"


def stream_commands(call: Call) -> Response:
    """Tell of changes as they come, from now on or behind the event with the id in the header Last-Event-ID."""
    call.check(call.query.client_id or None)
    after = last_event(call)
    call.take_seat()
    try:
        changes = follow(call, call.query.client_id or None, after)
    except BaseException:
        call.app.room.leave()
        raise

    def tell() -> bytes:
        change = changes.get(look_seconds(call))
        return encode(change) if change is not None and _wants(call, change.command) else b""

    return respond(call, tell, changes.close)


def follow(call: Call, client_id: str | None, after: int | None) -> Changes | Watcher:
    """Return the changes of an agent's commands, or of all, from now on or behind an event."""
    # Who goes on from an event reads what was missed alone; the others share one reader.
    return call.manager.watch(client_id) if after is None else Changes(call.manager.store, client_id, after)


def respond(call: Call, tell: Callable[[], bytes], close: Callable[[], object]) -> Response:
    """Return a response of events for a request that has a seat.

    ``tell()`` returns those of the next moment, which may be none; a LightLinkError that it raises ends the response.
    At the end ``close`` is called.
    """
    response = Response(_events(call, tell), mimetype=MIMETYPE)
    # Nothing on the way may hold events back (X-Accel-Buffering is for nginx).
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"

    @response.call_on_close
    def leave() -> None:
        close()
        call.app.room.leave()

    return response


def look_seconds(call: Call) -> float:
    """Return how long to wait for an event before it is looked whether the client is there still."""
    return min(_LOOK_SECONDS, call.app.limits.heartbeat)


def last_event(call: Call) -> int | None:
    """Return the number of the event that a client saw last; raises the HTTP error 400."""
    text = call.request.headers.get("Last-Event-ID", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest("Last-Event-ID: must be the id of an event")
    return int(text)


def _events(call: Call, tell: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield what there is to tell, and something when that has been nothing for a while."""
    yield _GREETING
    silent_until = Deadline(call.app.limits.heartbeat)
    while not call.is_pointless():
        try:
            told = tell()
            call.recheck()
        except (LightLinkError, Unauthorized) as exc:
            # The client comes again, says which event was its last, and misses nothing that it may hear of.
            _log.warning("lightlink: a stream of events ended: %s", exc)
            return
        if told or silent_until.is_over:
            yield told or b": \n\n"
            silent_until = Deadline(call.app.limits.heartbeat)


def _wants(call: Call, command: Command) -> bool:
    return call.may_see(command) and (not call.query.status or command.status == call.query.status)


def encode(change: Change) -> bytes:
    """Return a change as an event; it is encoded once, however many are told."""
    if not change.encoded:
        change.encoded.append(_encode(change))
    return change.encoded[0]


def _encode(change: Change) -> bytes:
    data = codec.encode_json(command_view(change.command))
    if change.number is None:  # without an id: nobody can go on from it
        return b"event: progress\ndata: %b\n\n" % data
    return b"id: %d\nevent: command\ndata: %b\n\n" % (change.number, data)
