"""What an agent needs of its wire: a claim to its client id, deliveries, the statuses of its commands and an inbox."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from lightlink.commands.agent.delivery import Deliveries
from lightlink.commands.messages import Inbox
from lightlink.commands.store.presence import Claim
from lightlink.commands.store.store import CommandStore, read_status
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, DecodeError, LightLinkError, PermissionDenied
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.client import Client
    from lightlink.commands.agent.delivery import Delivery
    from lightlink.commands.messages import MessageHandlers
    from lightlink.commands.model import StatusRecord
    from lightlink.commands.store.schema import StoreOptions
    from lightlink.connection.clock import ServerClock

_log = logging.getLogger("lightlink")


class Statuses(Protocol):
    """The statuses of commands, as `CommandStore` has them; every method raises StoreUnavailable."""

    clock: ServerClock

    def read_status(self, client_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return the last status and its revision; (None, 0) when there is none yet."""

    def read_statuses(self, ids: Sequence[tuple[str, str]]) -> list[tuple[StatusRecord | None, int]]:
        """Return the same for each (client id, command id)."""

    def write_status(self, client_id: str, command_id: str, record: StatusRecord, expected: int) -> int:
        """Store a status over a revision (0: none) and return its own; raises Conflict when that is not the last."""


class Held(Protocol):
    """Commands that the server has handed over, as `Deliveries` has them, until one of these is said of each."""

    def ack(self, delivery: Delivery) -> None:
        """Tell the server that a command has ended."""

    def hand_back(self, delivery: Delivery) -> None:
        """Return a command to the stream, to be delivered again at once."""

    def forget(self, delivery: Delivery) -> None:
        """Let the server deliver a command again later."""


class AgentLink:
    """The wire of one agent instance, over the connection of a client. Nothing is asked of the server before `open`.

    ``ack_wait`` is for how many seconds the server leaves a delivered command alone without a sign of life.
    """

    def __init__(self, client: Client, client_id: str, instance: str, options: StoreOptions) -> None:
        self.client_id = client_id
        self.instance = instance
        self.connection = client.connection
        self._store = CommandStore(client.connection, options, client.options.timeout)
        self.ack_wait = self._store.options.ack_wait  # until `open` knows better
        self.statuses: Statuses = self._store
        self._may_make_streams = True  # as far as is known
        self._status_route: Any = None
        self._forget_status: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Make streams and consumer if this identity may; else a manager makes them before its first command.

        Raises StoreUnavailable.
        """
        try:
            self._store.ensure_streams()
            self._store.ensure_consumers([self.client_id])
            self.ack_wait = self._store.consumer_ack_wait(self.client_id)
        except PermissionDenied as exc:
            self._may_make_streams = False
            self.ack_wait = self._store.options.ack_wait
            _log.debug("lightlink: agent %s leaves the streams to a manager: %s", self.client_id, exc)

    @property
    def heartbeat(self) -> float:
        """How many seconds lie between two signs of life, as the streams were made."""
        return self._store.options.heartbeat

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self.connection.status is Status.CONNECTED

    # The ports --------------------------------------------------------------------------------------------------------

    def claim(
        self, labels: Mapping[str, str], command_types: Sequence[str], load: Callable[[], tuple[int, int]]
    ) -> Claim:
        """Return the claim to the client id, which is not yet made."""
        return Claim(self._store, self.client_id, self.instance, labels, command_types, load)

    def deliveries(
        self,
        prefetch: int,
        on_deliveries: Callable[[list[Delivery]], object],
        later: Callable[[Callable[[], object]], object],
    ) -> Deliveries:
        """Return the deliveries, not yet begun; what may block runs by ``later``."""

        def on_missing() -> None:
            if self._may_make_streams:  # else a server would log each attempt, and there is one every second
                later(self._make_consumer)

        waits = (self.ack_wait, self.heartbeat)
        return Deliveries(self.connection, self.client_id, prefetch, *waits, on_deliveries, on_missing)

    def inbox(self, handlers: MessageHandlers, commands: dict[str, dict[str, str]] | None) -> Inbox:
        """Return the inbox for messages, not yet subscribed; ``commands`` is told to those who ask."""
        return Inbox(self.connection, self.client_id, handlers, commands)

    def follow(self, on_cancel: Callable[[str], object], on_connection: Callable[[Status], object]) -> None:
        """Call ``on_cancel`` with the id of each command to be cancelled, ``on_connection`` with each status."""

        def changed(status: Status) -> None:
            self._may_make_streams = self._may_make_streams or status is Status.CONNECTED
            on_connection(status)

        def hear(subject: str, data: bytes) -> None:
            if (command_id := self._cancelled_in(subject, data)) is not None:
                on_cancel(command_id)

        def arrive(subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
            if b'"cancel_requested"' in data:  # left out while it is false; peers may put spaces behind it
                self.connection.session.notifier.post(hear, as_text(subject), data)

        self._forget_status = self.connection.on_status(changed)
        self._status_route = self.connection.subscribe(subjects.command_status_event(self.client_id, "*"), "", arrive)

    def unfollow(self) -> None:
        """Call nobody any more."""
        self._forget_status()
        if self._status_route is not None:
            self.connection.session.unroute(self._status_route, 1.0)

    def failure(self) -> LightLinkError:
        """Return why the connection is closed for good."""
        return self.connection.failure or ClosedError("the client", "was closed under the agent")

    # ------------------------------------------------------------------------------------------------------------------

    def _make_consumer(self) -> None:
        try:
            self._store.forget_consumers()
            self.open()
        except LightLinkError as exc:
            _log.debug("lightlink: agent %s has no consumer yet: %s", self.client_id, exc)

    def _cancelled_in(self, subject: str, data: bytes) -> str | None:
        """Return the id of a command of this instance that a status asks to cancel."""
        try:
            status = read_status(data, subject)
        except DecodeError as exc:
            self.connection.report(exc)
            return None
        if status.cancel_requested and not status.ended and status.instance == self.instance:
            return subject.removeprefix(subjects.command_status_event(self.client_id, ""))
        return None
