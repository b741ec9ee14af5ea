"""Server-sent events of every change of every command (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from lightlink.commands.store.changes import Changes
from lightlink.errors import LightLinkError
from lightlink.http.views import command_view
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.commands.manager.fanout import Watcher
    from lightlink.commands.model import Command
    from lightlink.commands.store.changes import Change
    from lightlink.http.call import Call

_log = logging.getLogger("lightlink")

MIMETYPE = "text/event-stream"
# How soon a client that is gone is noticed, where the WSGI server can tell.
_LOOK_SECONDS = 1.0
RECONNECT_MS = 2000


def stream_commands(call: Call) -> Response:
    """Tell of changes as they come, from now on or behind the event with the id in the header Last-Event-ID."""
    call.check(call.query.client_id or None)
    after = _last_event(call)
    call.take_seat()
    try:
        # Who goes on from an event reads what was missed alone; the others share one reader.
        client_id = call.query.client_id or None
        changes = call.manager.watch(client_id) if after is None else Changes(call.manager.store, client_id, after)
    except BaseException:
        call.app.room.leave()
        raise
    response = Response(_events(call, changes), mimetype=MIMETYPE)
    # Nothing on the way may hold events back (X-Accel-Buffering is for nginx).
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"

    @response.call_on_close
    def leave() -> None:
        changes.close()
        call.app.room.leave()

    return response


def _last_event(call: Call) -> int | None:
    text = call.request.headers.get("Last-Event-ID", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest("Last-Event-ID: must be the id of an event")
    return int(text)


def _events(call: Call, changes: Changes | Watcher) -> Iterator[bytes]:
    heartbeat = call.app.limits.heartbeat
    # So that the client sees at once that it is connected, before there is anything to tell.
    yield f"retry: {RECONNECT_MS}\n: connected\n\n".encode()
    silent_until = time.monotonic() + heartbeat
    while not call.is_pointless():
        try:
            change = changes.get(min(_LOOK_SECONDS, heartbeat))
        except LightLinkError as exc:
            # The client comes again, says which event was its last, and misses nothing.
            _log.warning("lightlink: a stream of commands ended: %s", exc)
            return
        if change is not None and _wants(call, change.command):
            yield _event(change)
        elif time.monotonic() < silent_until:
            continue
        else:
            yield b": \n\n"
        silent_until = time.monotonic() + heartbeat


def _wants(call: Call, command: Command) -> bool:
    return call.may_see(command) and (not call.query.status or command.status == call.query.status)


def _event(change: Change) -> bytes:
    if not change.encoded:
        change.encoded.append(_encode(change))
    return change.encoded[0]


def _encode(change: Change) -> bytes:
    data = codec.encode_json(command_view(change.command))
    if change.number is None:  # without an id: nobody can go on from it
        return b"event: progress\ndata: %b\n\n" % data
    return b"id: %d\nevent: command\ndata: %b\n\n" % (change.number, data)
