"""Answer NATS service discovery, so that any NATS tool can list, ping and inspect a service (ADR-32)."""

from __future__ import annotations

import logging
import math
import socket
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lightlink.describe import DIGEST, P99, RATE
from lightlink.errors import InvalidOption, LightLinkError
from lightlink.protocol import codec, subjects
from lightlink.service.dispatch import RECENT
from lightlink.validators import string_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.connection.connection import Connection
    from lightlink.service.dispatch import Dispatcher, Method

_log = logging.getLogger("lightlink")

# An answer of 64 KiB, with room for who it is from.
_MAX_DESCRIBED = 60 * 1024
# A rate is that of so many seconds.
_RATE_SECONDS = 60.0
_TYPE = "io.nats.micro.v1.{}_response"


class Discovery:
    """Answers ``$SRV.PING|INFO|STATS[.name[.id]]`` for one instance of a service."""

    def __init__(
        self,
        name: str,
        instance: str,
        version: str,
        description: str,
        metadata: Mapping[str, str] | None,
        calls: Dispatcher,
        *,
        describes: bool,
    ) -> None:
        if not isinstance(description, str):
            raise InvalidOption("description", "must be a string", description)
        # An empty description or metadata is sent as such: tools refuse a null.
        told = {"host": socket.gethostname()} if describes else {}
        self._identity = {
            "name": name,
            "id": instance,
            "version": version,
            "metadata": told | string_map("metadata", metadata or {}),
        }
        self._describes = describes
        self._description = description
        self._calls = calls
        self._begin()

    def begin_anew(self, instance: str) -> None:
        """Answer for another instance, in a forked child."""
        self._identity["id"] = instance
        self._begin()

    def _begin(self) -> None:
        # What is told, and what is reckoned by, whatever the clock is set to.
        self._started, self._began = datetime.now(timezone.utc), time.monotonic()

    def subscribe(self, connection: Connection) -> list[Any]:
        """Subscribe to the discovery subjects; returns the subscriptions."""
        name, instance = self._identity["name"], self._identity["id"]
        made = []
        for verb, answer in (("PING", self.ping), ("INFO", self.info), ("STATS", self.stats)):
            for target in ((), (name,), (name, instance)):
                sink = self._sink(connection, answer)
                made.append(connection.subscribe(subjects.discovery_subject(verb, *target), "", sink))
        return made

    def ping(self) -> dict[str, Any]:
        """Return who this is."""
        return {"type": _TYPE.format("ping"), **self._identity}

    def info(self) -> dict[str, Any]:
        """Return who this is and what it serves; where all of that is too much, digests stand for descriptions."""
        told = {"type": _TYPE.format("info"), **self._identity, "description": self._description}
        methods = list(self._calls.methods.values())
        if not self._describes:
            return {**told, "endpoints": [self._endpoint(method, {}) for method in methods]}
        described = [self._endpoint(method, method.description.metadata()) for method in methods]
        if len(codec.encode_json(described)) > _MAX_DESCRIBED:
            described = [self._endpoint(method, {DIGEST: method.description.digest}) for method in methods]
        return {**told, "endpoints": described}

    def describe(self, method: str | None = None) -> dict[str, dict[str, str]]:
        """Return what is told of each method, or of one, as in the metadata of its endpoint."""
        return {
            name: each.description.metadata()
            for name, each in self._calls.methods.items()
            if method is None or name == method
        }

    def stats(self) -> dict[str, Any]:
        """Return what each method has done since the start; times in nanoseconds."""
        started = self._started.isoformat().replace("+00:00", "Z")
        endpoints = [self._endpoint_stats(method) for method in self._calls.methods.values()]
        return {"type": _TYPE.format("stats"), **self._identity, "started": started, "endpoints": endpoints}

    def _endpoint(self, method: Method, described: Mapping[str, str]) -> dict[str, Any]:
        return {
            "name": method.name,
            "subject": subjects.call_subject(str(self._identity["name"]), method.name).decode(),
            "queue_group": "q",
            "metadata": {**described, **method.metadata},
        }

    def _endpoint_stats(self, method: Method) -> dict[str, Any]:
        stats = method.stats
        total = int(stats.processing_time * 1e9)
        return {
            **self._endpoint(method, {}),
            "num_requests": stats.requests,
            "num_errors": stats.errors,
            "last_error": stats.last_error,
            "processing_time": total,
            "average_processing_time": total // stats.requests if stats.requests else 0,
            # Optional, but nats-py cannot read an answer without it.
            "data": _lately(list(method.recent), time.monotonic(), time.monotonic() - self._began),
        }

    def _sink(self, connection: Connection, answer: Callable[[], dict[str, Any]]) -> Any:
        def arrive(_subject: bytes, reply: bytes, _data: bytes, _headers: bytes | None) -> None:
            if not reply or not self._calls.may_answer(reply):
                return
            try:
                # On the loop's thread, which may not wait: the answer is short, and one that waited for a worker would
                # have a busy service look dead, and let a flood of questions fill the memory.
                connection.publish(reply, codec.encode_json(answer()), timeout=0.0)
            except LightLinkError as exc:
                _log.warning("lightlink: service discovery could not answer: %s", exc)

        return arrive


def _lately(recent: list[tuple[float, float]], now: float, age: float) -> dict[str, float] | None:
    """Return what the last requests of a method say of it, None without any; ``age`` is the service's, in seconds.

    Of few requests the slowest is the 99th of 100.
    """
    if not recent:
        return None
    took = sorted(seconds for _, seconds in recent)
    within = [began for began, _ in recent if now - began < _RATE_SECONDS]
    span = max(1.0, min(age, _RATE_SECONDS))
    if len(within) == RECENT:  # of a busy method more are of that minute, and forgotten
        span = max(now - within[0], 1e-6)
    return {RATE: round(len(within) / span, 3), P99: int(took[math.ceil(len(took) * 0.99) - 1] * 1e9)}
