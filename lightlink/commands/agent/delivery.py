"""What an agent's durable consumer delivers, as commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from lightlink.commands.store.store import read_request
from lightlink.errors import DecodeError
from lightlink.jetstream.pull import LEAST_HEARTBEAT, MOST_HEARTBEAT, PullConsumer
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.model import RequestRecord
    from lightlink.connection.connection import Connection
    from lightlink.jetstream.pull import Pulled


@attrs.define(eq=False)
class Delivery:
    """A command that the server has handed to this agent."""

    request: RequestRecord
    pulled: Pulled

    @property
    def sequence(self) -> int:
        """Its place among all requests."""
        return self.pulled.message.seq


class Deliveries:
    """Fetches up to ``prefetch`` commands ahead and calls ``on_deliveries`` with those that came together.

    So the most urgent of them can go first. See `PullConsumer` for the rest.
    """

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        prefetch: int,
        ack_wait: float,
        heartbeat: float,
        on_deliveries: Callable[[list[Delivery]], object],
        on_missing: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._on_deliveries = on_deliveries
        consumer = subjects.agent_consumer(client_id)
        self._pulls = PullConsumer(
            connection,
            subjects.COMMANDS_STREAM,
            consumer,
            prefetch,
            ack_wait,
            self._on_messages,
            on_missing,
            whole=True,
            # There may be thousands of agents: the server says no more to each than that says of itself.
            heartbeat=min(max(heartbeat, LEAST_HEARTBEAT), MOST_HEARTBEAT),
        )
        self.start = self._pulls.start
        self.stop = self._pulls.stop
        self.tick = self._pulls.tick

    def __len__(self) -> int:
        return len(self._pulls)

    def ack(self, delivery: Delivery) -> None:
        """Tell the server that a command has ended; without effect when it was told already."""
        self._pulls.ack(delivery.pulled)

    def hand_back(self, delivery: Delivery) -> None:
        """Return a command to the stream, to be delivered again at once."""
        self._pulls.hand_back(delivery.pulled)

    def forget(self, delivery: Delivery) -> None:
        """Let a command go without a word: the server delivers it again later."""
        self._pulls.forget(delivery.pulled)

    def _on_messages(self, burst: list[Pulled]) -> None:
        deliveries = []
        for pulled in burst:
            message = pulled.message
            try:
                request = read_request(message.data, as_text(message.subject), message.created)
            except DecodeError as exc:
                # Only a stranger to the wire format writes such a request; nobody could ever run it.
                self._connection.session.report(exc)
                self._pulls.end(pulled)
            else:
                deliveries.append(Delivery(request, pulled))
        if deliveries:
            self._on_deliveries(deliveries)
