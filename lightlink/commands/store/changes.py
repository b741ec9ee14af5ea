"""Follow every change of every command, in order and across outages, from the audit stream.

A change has a number that grows, the same for whoever watches, so that a watcher can go on where another ended.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import attrs

from lightlink.commands import model
from lightlink.commands.store import schema
from lightlink.commands.store.access import unavailable
from lightlink.commands.store.store import read_progress, read_request, read_status
from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.connection.connection import NoReply
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, DecodeError
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError
from lightlink.jetstream.read import Delivery, OrderedReader
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from lightlink.commands.model import Command, Progress, RequestRecord, StatusRecord
    from lightlink.commands.store.store import CommandStore

# What is read ahead of a watcher. The reader's window counts headers and bodies, the queue only bounds a mistake.
_AHEAD = 256
_NO_LIMIT = 1 << 40
# Requests are kept, unless they are large, so that a change of status needs no look at the store: of as many commands
# under way as these bytes hold.
_KEPT_BYTES = 32 * 1024 * 1024
_KEPT = 65_536
_OF_ITSELF = 512
_LARGE = 8 * 1024


@attrs.frozen
class Change:
    """A command as it stood after one of its changes. ``number`` grows, with gaps; None is a change of progress alone.

    Such a change is kept by nobody: who follows from a number on does not hear of it again.
    """

    number: int | None
    command: Command
    # As an event on the wire, once somebody has made one of it: it is the same for all who watch.
    encoded: list[bytes] = attrs.field(factory=list, eq=False, repr=False)


class _Told(NamedTuple):
    """Progress as it came."""

    subject: str
    data: bytes


class Changes:
    """The changes of the commands of one client, or of all, from now on or behind the one with the number ``after``.

    Each command's changes are its request (as pending) and every revision of its status. Raises InvalidName,
    StoreUnavailable.
    """

    def __init__(self, store: CommandStore, client_id: str | None = None, after: int | None = None) -> None:
        self._store = store
        token = "*" if client_id is None else schema.client_id(client_id)
        patterns = [subjects.command_request(token, "*"), subjects.command_status(token, "*")]
        self._waiting = MessageQueue(2 * _AHEAD, _NO_LIMIT)
        self._requests: OrderedDict[str, RequestRecord] = OrderedDict()
        self._requests_size = 0
        self._told: OrderedDict[str, None] = OrderedDict()  # commands of whose status something was told
        self._running: OrderedDict[str, StatusRecord] = OrderedDict()  # last statuses, of commands that run
        self._early: OrderedDict[str, Progress] = OrderedDict()
        connection = self._store.connection
        self._progress = connection.subscribe(subjects.command_progress(token, "*"), "", self._take_progress)
        try:
            first = self._first(after)
            self._reader = OrderedReader(
                connection, subjects.AUDIT_STREAM, patterns, self._take, first=first, window=_AHEAD
            )
            self._reader.start(self._store.timeout)
        except BaseException as exc:
            connection.session.unroute(self._progress, 1.0)
            if isinstance(exc, (JetStreamError, NoReply, TimeoutError)):
                raise unavailable("following all commands", exc) from exc
            raise
        self._forget_status = connection.on_status(self._on_connection)

    def get(self, timeout: float) -> Change | None:
        """Return the next change, None when there is none within ``timeout`` seconds.

        Raises ClosedError when none will come, StoreUnavailable when a command could not be read.
        """
        deadline = instant_after(timeout)
        while True:
            try:
                delivery: Delivery | _Told = self._waiting.get(deadline)
            except TimeoutError:
                return None
            except Closed:
                raise ClosedError("the watch of all commands") from None
            if isinstance(delivery, Delivery):
                self._reader.release(delivery)
            try:
                change = self._read(delivery) if isinstance(delivery, Delivery) else self._read_progress(delivery)
            except DecodeError as exc:
                # What cannot be read now never can; whoever watches must not stumble over it again and again.
                self._store.connection.report(exc)
                continue
            if change is not None:
                return change

    def close(self) -> None:
        """End it; idempotent."""
        self._forget_status()
        self._store.connection.session.unroute(self._progress, 1.0)
        self._reader.stop()
        self._waiting.close()

    def _first(self, after: int | None) -> int:
        """Return the sequence to begin at. A number that is not given yet is from a stream that has been lost."""
        info = api.stream_info(self._store.connection, subjects.AUDIT_STREAM, self._store.timeout)
        last = info.state.last_seq if info is not None else 0
        return last + 1 if after is None else min(after, last) + 1

    def _take(self, delivery: Delivery) -> None:
        self._waiting.put(delivery, delivery.size)

    def _take_progress(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        if data and len(self._waiting) < _AHEAD:
            self._waiting.put(_Told(as_text(subject), data), len(data))

    def _read_progress(self, told: _Told) -> Change | None:
        """Return how far a command has come; None unless it is known to run."""
        command_id = told.subject.rpartition(".")[2]
        status, request = self._running.get(command_id), self._requests.get(command_id)
        progress = read_progress(told.data, told.subject)
        if progress is not None and status is None:
            self._early[command_id] = progress  # it was quicker than the word that the command runs
            if len(self._early) > _KEPT:
                self._early.popitem(last=False)
        if status is None or request is None or progress is None:
            return None
        if told.subject != subjects.command_progress(request.client_id, command_id):
            return None
        return Change(None, model.fold(request, status, self._store.clock.now(), progress))

    def _on_connection(self, status: Status) -> None:
        if status is Status.CLOSED:
            self._waiting.close()

    def _read(self, delivery: Delivery) -> Change | None:
        """Return what happened; None for what is not worth telling."""
        subject = as_text(delivery.subject)
        client_id, command_id = subjects.command_ids(subject)
        if subject.startswith(subjects.COMMANDS):
            request = read_request(delivery.data, subject)
            self._keep(request)
            if command_id in self._told:
                return None  # the audit hears of requests and of statuses on two ways, and of this one too late
            return Change(delivery.seq, model.fold(request, None, request.created_at))
        status = read_status(delivery.data, subject)
        known = self._requests.get(command_id) or self._store.get_request(client_id, command_id)
        if known is None:
            return None  # its request has expired
        self._keep(known)
        self._running.pop(command_id, None)
        if not status.ended:
            self._running[command_id] = status
            if len(self._running) > _KEPT:
                self._running.popitem(last=False)
        self._told[command_id] = None
        if len(self._told) > _KEPT:
            self._told.popitem(last=False)
        early = self._early.pop(command_id, None)
        return Change(delivery.seq, model.fold(known, status, status.at, None if status.ended else early))

    def _keep(self, request: RequestRecord) -> None:
        if len(request.payload) > _LARGE:
            return
        if request.command_id not in self._requests:
            self._requests_size += len(request.payload) + _OF_ITSELF
        self._requests[request.command_id] = request
        self._requests.move_to_end(request.command_id)
        while self._requests_size > _KEPT_BYTES:
            _, oldest = self._requests.popitem(last=False)
            self._requests_size -= len(oldest.payload) + _OF_ITSELF
