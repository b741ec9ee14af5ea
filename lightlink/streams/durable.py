"""Durable consumers: made, or compared with what is there; looked at, paused, set back (ADR-37)."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.errors import InvalidOption, StreamError, StreamNotFound
from lightlink.jetstream import api
from lightlink.jetstream.answers import ConsumerInfo
from lightlink.jetstream.errors import CONSUMER_NOT_FOUND, JetStreamError
from lightlink.protocol import subjects
from lightlink.streams.stream import ask, start_of, stream_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from lightlink.connection.connection import Connection

    T = TypeVar("T")

ACK_WAIT = 30.0
_SECOND = 1_000_000_000
_MAX_ACK_PENDING = 10_000


@attrs.frozen(kw_only=True)
class Lag:
    """How far a consumer is behind: events ``waiting``, handed out and not settled, and of those given out again."""

    waiting: int
    in_flight: int
    retried: int
    paused: bool


class Durable:
    """A durable consumer of a stream. Its methods raise StreamError, StreamNotFound, PermissionDenied, ClosedError."""

    def __init__(self, connection: Connection, stream: str, name: str, timeout: float) -> None:
        self.stream = stream
        self.name = stream_name(name)
        self._connection = connection
        self._timeout = timeout
        self._request: dict[str, Any] | None = None

    def ensure(self, filters: Sequence[str], since: Any = "first", ack_wait: float = ACK_WAIT) -> None:
        """Make the consumer, or compare it with what is wanted; raises StreamError with the difference.

        Nothing is left to the server's own retries: its ``backoff`` would replace ``ack_wait``.
        """
        config = {
            "name": self.name,
            "durable_name": self.name,
            "ack_policy": "explicit",
            "ack_wait": round(ack_wait * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": _MAX_ACK_PENDING,
            "replay_policy": "instant",
            **start_of(since),
        }
        wanted = sorted({subjects.subscribe_subject(each) for each in filters})
        if len(wanted) == 1:
            config["filter_subject"] = wanted[0]
        else:
            config["filter_subjects"] = wanted
        self._request = config
        found = self._find()
        if found is None:
            self._make(config)
        else:
            self._compare(found, wanted)

    def make_again(self) -> None:
        """Make the consumer if it is gone, as it was made before."""
        if self._request is not None and self._find() is None:
            self._make(self._request)

    def info(self) -> ConsumerInfo:
        """Return what the server says of the consumer."""
        found = self._find()
        if found is None:
            raise StreamNotFound(f"{self.stream}/{self.name}")
        return found

    def lag(self) -> Lag:
        """Return how far the consumer is behind."""
        info = self.info()
        return Lag(
            waiting=info.num_pending, in_flight=info.num_ack_pending, retried=info.num_redelivered, paused=info.paused
        )

    def pause(self, until: datetime) -> None:
        """Have the server hand out nothing until an aware datetime; nats-server 2.11 and later."""
        if until.tzinfo is None:
            raise InvalidOption("until", "must be an aware datetime", until)
        self._pause(until)

    def resume(self) -> None:
        """Have the server hand out events again."""
        self._pause(datetime.fromtimestamp(0, timezone.utc))

    def reset(self, since: Any) -> None:
        """Begin anew from ``first``, ``new``, a sequence, an aware datetime or a timedelta ago.

        What is being handled is handed out again if it lies behind that.
        """
        config = self._ask("read", partial(api.api, self._connection, self._subject("INFO"), None))["config"]
        for name in ("opt_start_seq", "opt_start_time", "deliver_policy"):
            config.pop(name, None)
        self.delete()
        self._make({**config, **start_of(since)})

    def delete(self) -> None:
        """Remove the consumer; the stream stays."""
        self._ask("delete", partial(api.api, self._connection, self._subject("DELETE"), None))

    # ------------------------------------------------------------------------------------------------------------------

    def _pause(self, until: datetime) -> None:
        body = {"pause_until": until.isoformat()}
        answer = self._ask("pause", partial(api.api, self._connection, self._subject("PAUSE"), body))
        if "paused" not in answer:
            raise StreamError(f"{self.stream}/{self.name}", "pause", "nats-server 2.11 or later is needed")

    def _make(self, config: dict[str, Any]) -> None:
        filters = config.get("filter_subject", "")
        subject = f"CONSUMER.CREATE.{self.stream}.{self.name}" + (f".{filters}" if filters else "")
        body = {"stream_name": self.stream, "config": config, "action": "create"}
        self._ask("make", partial(api.api, self._connection, subject, body))

    def _find(self) -> ConsumerInfo | None:
        def question(timeout: float) -> ConsumerInfo | None:
            try:
                return api.api(self._connection, self._subject("INFO"), None, timeout, ConsumerInfo)
            except JetStreamError as exc:
                if exc.err_code == CONSUMER_NOT_FOUND:
                    return None
                raise

        return self._ask("read", question)

    def _compare(self, found: ConsumerInfo, wanted: list[str]) -> None:
        config = found.config
        filters = sorted(config.filter_subjects or ([config.filter_subject] if config.filter_subject else []))
        apart = []
        if filters != wanted:
            apart.append(f"it reads {', '.join(filters) or 'everything'}, not {', '.join(wanted)}")
        for name, theirs, ours in (
            ("ack_policy", config.ack_policy, "explicit"),
            ("max_deliver", config.max_deliver, -1),
            ("deliver_subject", config.deliver_subject, ""),
            ("backoff", config.backoff or [], []),
        ):
            if theirs != ours:
                apart.append(f"{name} is {theirs!r}, not {ours!r}")
        if apart:
            reason = f"another program has made or changed it: {'; '.join(apart)}"
            raise StreamError(f"{self.stream}/{self.name}", "use consumer", reason)

    def _subject(self, operation: str) -> str:
        return f"CONSUMER.{operation}.{self.stream}.{self.name}"

    def _ask(self, operation: str, question: Callable[[float], T]) -> T:
        try:
            return ask(self.stream, f"{operation} consumer {self.name} of", question, self._timeout)
        except StreamNotFound as exc:
            raise StreamNotFound(exc.name) from exc
