"""Durable consumers: create or compare, inspect, pause, reset (ADR-37)."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.errors import InvalidOption, LightLinkError, StreamError, StreamNotFound
from lightlink.jetstream import api
from lightlink.jetstream.answers import ConsumerInfo, parse_time
from lightlink.jetstream.errors import CONSUMER_NOT_FOUND, FILTERS_OVERLAP, JetStreamError
from lightlink.protocol import subjects
from lightlink.streams.stream import ask, start_of, stream_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from lightlink.connection.connection import Connection

    T = TypeVar("T")

_log = logging.getLogger("lightlink")

ACK_WAIT = 30.0
_SECOND = 1_000_000_000
_MAX_ACK_PENDING = 10_000
_START = ("deliver_policy", "opt_start_seq", "opt_start_time")
_REPLACED = ("filter_subject", "filter_subjects", "backoff")


@attrs.frozen(kw_only=True)
class Lag:
    """How far a consumer is behind: events ``waiting``, ``in_flight`` (not acknowledged), and ``retried`` of these.

    ``oldest`` is the age in seconds of the oldest unsettled event; None when there is none.
    """

    waiting: int
    in_flight: int
    retried: int
    paused: bool
    oldest: float | None = None


class Durable:
    """A durable consumer of a stream. Its methods raise StreamError, StreamNotFound, PermissionDenied, ClosedError."""

    def __init__(self, connection: Connection, stream: str, name: str, timeout: float) -> None:
        self.stream = stream
        self.name = stream_name(name)
        self._connection = connection
        self._timeout = timeout
        self._request: dict[str, Any] | None = None
        self._known: list[str] = []  # differences that were logged already
        self.ack_wait = ACK_WAIT  # seconds, as configured on the server

    def ensure(
        self,
        filters: Sequence[str],
        since: Any = "first",
        ack_wait: float = ACK_WAIT,
        *,
        update: bool = False,
        max_ack_pending: int = _MAX_ACK_PENDING,
    ) -> None:
        """Create the consumer, or compare an existing one with what is wanted.

        Raises StreamError with the differences that would break what is promised; others are logged, and what is there
        is used. With ``update`` it is changed. Nothing is left to the server's own retries: its ``backoff`` would
        replace ``ack_wait``.
        """
        config = {
            "name": self.name,
            "durable_name": self.name,
            "ack_policy": "explicit",
            "ack_wait": round(ack_wait * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": max_ack_pending,
            "replay_policy": "instant",
            **start_of(since),
        }
        wanted = sorted({subjects.subscribe_subject(each) for each in filters})
        if len(wanted) == 1:
            config["filter_subject"] = wanted[0]
        else:
            config["filter_subjects"] = wanted
        self._request = config
        self.ack_wait = ack_wait
        found = self.find()
        if found is None:
            self._make(config)
            return
        broken, other = self._differences(found, is_relative=isinstance(since, timedelta))
        if update and (broken or other):
            # The start position cannot be changed later; the server would refuse the update.
            kept = {name: value for name, value in self._whole_config().items() if name not in _REPLACED}
            self._make({**kept, **{name: value for name, value in config.items() if name not in _START}}, "update")
            return
        if broken:
            reason = f"another program has made or changed it: {'; '.join(broken)}; update=True changes it"
            raise StreamError(f"{self.stream}/{self.name}", "use consumer", reason)
        if other:
            _log.warning("lightlink: consumer %s/%s is used as it is: %s", self.stream, self.name, "; ".join(other))
            self._known = other
        self.ack_wait = found.config.ack_wait / _SECOND or ack_wait

    def look(self) -> ConsumerInfo | None:
        """Return the consumer's info; log what another program has changed since `ensure`."""
        found = self.find()
        if found is not None:
            apart = [each for part in self._differences(found, is_relative=True) for each in part]
            if apart and apart != self._known:
                _log.warning(
                    "lightlink: another program has changed consumer %s/%s: %s",
                    self.stream,
                    self.name,
                    "; ".join(apart),
                )
            self._known = apart
        return found

    def make_again(self) -> None:
        """Recreate the consumer with its previous configuration if it is gone."""
        if self._request is not None and self.find() is None:
            self._make(self._request)
            start = " ".join(filter(None, _start_of(self._request.get)))
            _log.warning(
                "lightlink: consumer %s/%s was gone and is recreated; it starts with %s", self.stream, self.name, start
            )

    def info(self) -> ConsumerInfo:
        """Return the consumer's info from the server."""
        found = self.find()
        if found is None:
            raise StreamNotFound(f"{self.stream}/{self.name}")
        return found

    def lag(self) -> Lag:
        """Return the consumer's lag."""
        info = self.info()
        return Lag(
            waiting=info.num_pending,
            in_flight=info.num_ack_pending,
            retried=info.num_redelivered,
            paused=info.paused,
            oldest=self._oldest(info),
        )

    def pause(self, until: datetime) -> None:
        """Pause delivery until an aware datetime; needs nats-server 2.11 or later. Raises InvalidOption."""
        if until.tzinfo is None:
            raise InvalidOption("until", "must be an aware datetime", until)
        self._pause(until)

    def resume(self) -> None:
        """Resume delivery."""
        self._pause(datetime.fromtimestamp(0, timezone.utc))

    def reset(self, since: Any) -> None:
        """Restart from ``first``, ``new``, a sequence, an aware datetime or a timedelta ago.

        Events in flight are redelivered if they lie behind that point. Where it is deleted and then cannot be made
        again, the StreamError says so. Raises InvalidOption.
        """
        start = start_of(since)
        kept = {name: value for name, value in self._whole_config().items() if name not in _START}
        self.delete()
        try:
            self._make({**kept, **start})
        except LightLinkError as exc:
            reason = f"it was deleted to begin anew, and could not be made again: {exc}"
            raise StreamError(f"{self.stream}/{self.name}", "reset consumer", reason) from exc

    def delete(self) -> None:
        """Delete the consumer; the stream stays."""
        self._ask("delete", partial(api.api, self._connection, self._subject("DELETE"), None))

    # ------------------------------------------------------------------------------------------------------------------

    def _pause(self, until: datetime) -> None:
        body = {"pause_until": until.isoformat()}
        answer = self._ask("pause", partial(api.api, self._connection, self._subject("PAUSE"), body))
        if "paused" not in answer:
            raise StreamError(f"{self.stream}/{self.name}", "pause", "nats-server 2.11 or later is needed")

    def _whole_config(self) -> dict[str, Any]:
        answer = self._ask("read", partial(api.api, self._connection, self._subject("INFO"), None))
        config: dict[str, Any] = answer["config"]
        return config

    def _make(self, config: dict[str, Any], action: str = "create") -> None:
        filters = config.get("filter_subject", "")
        subject = f"CONSUMER.CREATE.{self.stream}.{self.name}" + (f".{filters}" if filters else "")
        body = {"stream_name": self.stream, "config": config, "action": action}
        try:
            self._ask("make" if action == "create" else "change", partial(api.api, self._connection, subject, body))
        except StreamError as exc:
            if isinstance(exc.__cause__, JetStreamError) and exc.__cause__.err_code in FILTERS_OVERLAP:
                self._name_overlap(_filters_of(config.get))
            raise

    def _name_overlap(self, filters: list[str]) -> None:
        """Raise StreamError naming the consumer of a work queue whose filter overlaps with this one."""
        names = self._ask("list the other consumers beside", partial(api.consumer_names, self._connection, self.stream))
        for name in sorted(names - {self.name}):
            other = Durable(self._connection, self.stream, name, self._timeout).find()
            for theirs in [] if other is None else _filters_of(partial(getattr, other.config)) or [">"]:
                ours = next((each for each in filters if subjects.overlap(each, theirs)), None)
                if ours is not None:
                    reason = (
                        f"{ours} overlaps with {theirs}, which consumer {name!r} reads: "
                        f"in a work queue an event goes to one consumer"
                    )
                    raise StreamError(f"{self.stream}/{self.name}", "make consumer", reason)

    def _oldest(self, info: ConsumerInfo) -> float | None:
        if not (info.num_pending or info.num_ack_pending):
            return None
        # Everything up to the ack floor is settled; with nothing in flight, so is everything delivered.
        floor = info.ack_floor.stream_seq if info.num_ack_pending else info.delivered.stream_seq
        ages = []
        for each in _filters_of(partial(getattr, info.config)) or [">"]:
            question = partial(api.get_next, self._connection, self.stream, each, floor + 1)
            message = self._ask("read an event for", question)
            if message is not None:
                ages.append(((info.told_at or datetime.now(timezone.utc)) - message.created).total_seconds())
        return max(0.0, *ages) if ages else None

    def find(self) -> ConsumerInfo | None:
        """Return the consumer's info, None if there is no such consumer."""

        def question(timeout: float) -> ConsumerInfo | None:
            try:
                return api.api(self._connection, self._subject("INFO"), None, timeout, ConsumerInfo)
            except JetStreamError as exc:
                if exc.err_code == CONSUMER_NOT_FOUND:
                    return None
                raise

        return self._ask("read", question)

    def _differences(self, found: ConsumerInfo, *, is_relative: bool) -> tuple[list[str], list[str]]:
        """Return the differences that break a guarantee, and the other ones."""
        assert self._request is not None
        config, asked = found.config, self._request
        theirs, ours = _filters_of(partial(getattr, config)), _filters_of(asked.get)
        broken = [] if theirs == ours else [f"it reads {', '.join(theirs) or 'everything'}, not {', '.join(ours)}"]
        for name, value in (("ack_policy", "explicit"), ("max_deliver", -1), ("deliver_subject", ""), ("backoff", [])):
            there: Any = getattr(config, name) or type(value)()
            if there != value:
                broken.append(f"{name} is {there!r}, not {value!r}")
        other = []
        if config.ack_wait != asked["ack_wait"]:
            other.append(f"ack_wait is {config.ack_wait / _SECOND:g} s, not {asked['ack_wait'] / _SECOND:g} s")
        if config.max_ack_pending != asked["max_ack_pending"]:
            worse = broken if asked["max_ack_pending"] == 1 else other  # 1 keeps the order
            worse.append(f"max_ack_pending is {config.max_ack_pending}, not {asked['max_ack_pending']}")
        began, begins = _start_of(partial(getattr, config)), _start_of(asked.get)
        # A start relative to now differs each time, so only the policy is compared.
        if (began[0] if is_relative else began) != (begins[0] if is_relative else begins):
            other.append(f"deliver_policy is {' '.join(filter(None, began))}, not {' '.join(filter(None, begins))}")
        return broken, other

    def _subject(self, operation: str) -> str:
        return f"CONSUMER.{operation}.{self.stream}.{self.name}"

    def _ask(self, operation: str, question: Callable[[float], T]) -> T:
        try:
            return ask(self.stream, f"{operation} consumer {self.name} of", question, self._timeout)
        except StreamNotFound as exc:
            raise StreamNotFound(exc.name) from exc


def _filters_of(config: Callable[[str, Any], Any]) -> list[str]:
    """Return the filter subjects of a configuration, given its getter; empty for all."""
    single = config("filter_subject", "")
    return sorted(config("filter_subjects", None) or ([single] if single else []))


def _start_of(config: Callable[[str, Any], Any]) -> tuple[str, str, str]:
    """Return the deliver policy and start position, with times normalized to UTC."""
    instant = config("opt_start_time", "")
    with contextlib.suppress(ValueError):  # another tool may have written it in another time zone
        instant = instant and str(parse_time(instant))
    sequence = config("opt_start_seq", 0)
    return config("deliver_policy", "all"), str(sequence) if sequence else "", instant
