"""One stream of all that a page shows live: commands, runs, and whether NATS is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.connection.session import Status
from lightlink.http.views import stream
from lightlink.http.views.runs import run_event
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from lightlink.http.call import Call

# How late a run's state and the link's may be told while no command changes.
_TURN_SECONDS = 0.2


def stream_events(call: Call) -> Response:
    """Tell of commands, of runs and of the link to NATS as they change.

    Behind the event with the id in the header Last-Event-ID no change of a command is missed.
    """
    call.check(None)
    after = stream.last_event(call)
    call.take_seat()
    try:
        sources = _Sources(call, after)
    except BaseException:
        call.app.room.leave()
        raise
    return stream.respond(call, sources.next, sources.close)


class _Sources:
    """What one request is told of."""

    def __init__(self, call: Call, after: int | None) -> None:
        self._call = call
        self._connected = True  # as far as the client knows
        manager = call.manager
        self._link = manager.connection
        # A run tells of all its targets.
        limited = call.token is not None and call.token.is_limited
        self._runs = manager.watch_runs() if isinstance(manager, Orchestrator) and not limited else None
        try:
            self._changes = stream.follow(call, None, after)
        except BaseException:
            self._close_runs()
            raise

    def next(self) -> bytes:
        """Return the events of the next moment; raises LightLinkError when changes cannot be read any more."""
        told = []
        connected = self._link.status is Status.CONNECTED
        if connected != self._connected:
            self._connected = connected
            told.append(b'event: link\ndata: {"connected":%b}\n\n' % (b"true" if connected else b"false"))
        change = self._changes.get(_TURN_SECONDS)
        if change is not None and self._call.may_see(change.command):
            told.append(stream.encode(change))
        while self._runs is not None and (state := self._runs.get(0.0)) is not None:
            told.append(run_event(state))
        return b"".join(told)

    def close(self) -> None:
        self._close_runs()
        self._changes.close()

    def _close_runs(self) -> None:
        if self._runs is not None:
            self._runs.close()
