"""Follow every change of every command, in order and across outages, from the audit stream.

A change has a number that grows, the same for whoever watches, so that a watcher can go on where another ended.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

from lightlink.commands import model
from lightlink.commands.store import schema
from lightlink.commands.store.access import unavailable
from lightlink.commands.store.store import read_request, read_status
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.connection.connection import NoReply
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, DecodeError
from lightlink.jetstream import api
from lightlink.jetstream.api import JetStreamError
from lightlink.jetstream.read import Delivery, OrderedReader
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from lightlink.commands.manager.manager import CommandManager
    from lightlink.commands.model import Command, RequestRecord

# What is read ahead of a watcher. The reader's window counts headers and bodies, the queue only bounds a mistake.
_AHEAD = 256
_NO_LIMIT = 1 << 40
# Requests are kept, unless they are large, so that a change of status needs no look at the store.
_REQUESTS_KEPT = 512
_LARGE = 8 * 1024
_TOLD_KEPT = 4096


@attrs.frozen
class Change:
    """A command as it stood after one of its changes. ``number`` grows, with gaps."""

    number: int
    command: Command


class Changes:
    """The changes of the commands of one client, or of all, from now on or behind the one with the number ``after``.

    Each command's changes are its request (as pending) and every revision of its status. Raises InvalidName,
    StoreUnavailable.
    """

    def __init__(self, manager: CommandManager, client_id: str | None = None, after: int | None = None) -> None:
        self._store = manager._store
        token = "*" if client_id is None else schema.client_id(client_id)
        patterns = [schema.request_subject(token, "*"), schema.status_subject(token, "*")]
        self._waiting = MessageQueue(2 * _AHEAD, _NO_LIMIT)
        self._requests: OrderedDict[str, RequestRecord] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()  # commands of whose status something was told
        connection = self._store.connection
        try:
            first = self._first(after)
            self._reader = OrderedReader(connection, schema.AUDIT, patterns, self._take, first=first, window=_AHEAD)
            self._reader.start(self._store.timeout)
        except (JetStreamError, NoReply, TimeoutError) as exc:
            raise unavailable("following all commands", exc) from exc
        self._forget_status = connection.on_status(self._on_connection)

    def get(self, timeout: float) -> Change | None:
        """Return the next change, None when there is none within ``timeout`` seconds.

        Raises ClosedError when none will come, StoreUnavailable when a command could not be read.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                delivery: Delivery = self._waiting.get(deadline)
            except TimeoutError:
                return None
            except Closed:
                raise ClosedError("the watch of all commands") from None
            self._reader.release(delivery)
            try:
                change = self._read(delivery)
            except DecodeError as exc:
                # What cannot be read now never can; whoever watches must not stumble over it again and again.
                self._store.connection.report(exc)
                continue
            if change is not None:
                return change

    def close(self) -> None:
        """End it; idempotent."""
        self._forget_status()
        self._reader.stop()
        self._waiting.close()

    def _first(self, after: int | None) -> int:
        """Return the sequence to begin at. A number that is not given yet is from a stream that has been lost."""
        info = api.stream_info(self._store.connection, schema.AUDIT, self._store.timeout)
        last = int(info["state"]["last_seq"]) if info is not None else 0
        return last + 1 if after is None else min(after, last) + 1

    def _take(self, delivery: Delivery) -> None:
        self._waiting.put(delivery, delivery.size)

    def _on_connection(self, status: Status) -> None:
        if status is Status.CLOSED:
            self._waiting.close()

    def _read(self, delivery: Delivery) -> Change | None:
        """Return what happened; None for what is not worth telling."""
        subject = as_text(delivery.subject)
        client_id, command_id = schema.ids_of(subject)
        if subject.startswith("ll.commands."):
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
        self._told[command_id] = None
        if len(self._told) > _TOLD_KEPT:
            self._told.popitem(last=False)
        return Change(delivery.seq, model.fold(known, status, status.at))

    def _keep(self, request: RequestRecord) -> None:
        if len(bytes(request.payload)) > _LARGE:
            return
        self._requests[request.command_id] = request
        self._requests.move_to_end(request.command_id)
        if len(self._requests) > _REQUESTS_KEPT:
            self._requests.popitem(last=False)
