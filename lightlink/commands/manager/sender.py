"""Store requests for agents, one or many, and have what becomes of them followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink import logs
from lightlink.commands import model
from lightlink.commands.manager.batch import Batch, Rollout
from lightlink.commands.manager.template import Template, refuse_too_large
from lightlink.commands.store.presence import read_presence
from lightlink.errors import AgentOffline, ClosedError, InvalidOption
from lightlink.middleware import Call
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.commands.manager.batch import Limits
    from lightlink.commands.manager.cancel import Canceller
    from lightlink.commands.manager.follower import Follower
    from lightlink.commands.manager.promise import CommandPromise
    from lightlink.commands.model import RequestRecord
    from lightlink.commands.store.store import CommandStore
    from lightlink.concurrency.workers import WorkerPool
    from lightlink.protocol.codec import HeaderMap


class Sender:
    """Sends commands in a manager's ``name``; batches are sent and cancelled on the pool."""

    def __init__(
        self, name: str, store: CommandStore, follower: Follower, canceller: Canceller, pool: WorkerPool
    ) -> None:
        self._name = name
        self._store = store
        self._connection = store.connection
        self._follower = follower
        self._canceller = canceller
        self._pool = pool

    def around(
        self,
        command_type: str,
        payload: Any,
        timeout: float,
        headers: HeaderMap | None,
        to: Sequence[str],
        last: Callable[[Call], Any],
    ) -> Any:
        """Return what ``last`` does, with the client's middleware around it."""
        sent = dict(logs.outgoing(headers) or {})
        call = Call(kind="send", name=command_type, args=payload, headers=sent, timeout=timeout, to=tuple(to))
        return self._connection.middleware.run(call, last)

    def template(
        self,
        command_type: str,
        payload: Any,
        timeout: float,
        priority: int,
        issued_by: str | None,
        headers: HeaderMap | None,
        batch_id: str | None = None,
    ) -> Template:
        """Return what requests are made of; raises InvalidOption."""
        if seconds("timeout", timeout) > self._store.options.retention:
            raise InvalidOption("timeout", "is longer than commands are kept (StoreOptions.retention)", timeout)
        return Template(
            command_type=command_type,
            payload=payload,
            timeout=timeout,
            priority=priority,
            batch_id=batch_id,
            created_at=self._connection.clock.now(),
            issued_by=issued_by or self._name,
            headers=headers,
        )

    def send(self, record: RequestRecord, queue: bool) -> CommandPromise:
        """Store a request and follow it; without ``queue`` only for an agent that is online, else AgentOffline."""
        client_id = record.client_id
        if not queue and read_presence(self._store, client_id)[0] is None:
            raise AgentOffline(client_id)
        self._store.ensure_consumers([client_id])
        if record.idempotency_key is not None:
            return self._send_once(record)
        # Followed before it is written, so that no revision is missed.
        promise = self._follower.open(record)
        try:
            self._store.put_request(record)
        except BaseException as exc:
            promise.fail(
                exc if isinstance(exc, Exception) else ClosedError("the wait for the store", "was interrupted")
            )
            raise
        return promise

    def _send_once(self, record: RequestRecord) -> CommandPromise:
        """Send a command whose id comes from a caller's key, or follow the one that was sent with that key before."""
        first = self._store.find_request(record.command_id) or self._store.put_request(record)
        for name in ("client_id", "command_type"):
            if getattr(first, name) != getattr(record, name):
                used = f"was used for the command {first.command_type!r} to {first.client_id}"
                raise InvalidOption("idempotency_key", used, record.idempotency_key)
        return self.follow(first)

    def send_under(self, record: RequestRecord) -> CommandPromise:
        """Store a request under an id that others would give it too, and follow the one that came first."""
        self._store.ensure_consumers([record.client_id])
        return self.follow(self._store.put_request(record))

    def send_batch(self, batch_id: str, records: list[RequestRecord], limits: Limits) -> Batch:
        """Send many, within ``limits``; what fails for some only, the batch tells."""
        refuse_too_large(records, self._connection.max_payload)
        self._store.ensure_consumers(dict.fromkeys(record.client_id for record in records))
        batch = Batch(batch_id, records, self._canceller.cancel_all)
        Rollout(batch, self._store, self._follower, self._pool, limits).start()
        return batch

    def follow(self, request: RequestRecord) -> CommandPromise:
        """Return a promise for a command that may run already, with what was told of it before."""
        promise = self._follower.open(request)
        self._follower.check(promise)
        if promise.status == model.EXECUTING:
            (progress,) = self._store.read_progress([(promise.client_id, promise.command_id)])
            promise.learn_progress(progress)
        return promise
