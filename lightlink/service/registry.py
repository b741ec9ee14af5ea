"""Tell a platform of peers that a service is there: ``$LL.register.<service>``, and ``$LL.heartbeat.<service>``.

Platforms and dependency checkers of this wire format wait for these. Service discovery (ADR-32) needs none of it.
"""

from __future__ import annotations

import logging
import os
import socket
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.scheduler import every
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.connection.connection import Connection
    from lightlink.service.discovery import Discovery

_log = logging.getLogger("lightlink")

HEARTBEAT_SECONDS = 30.0


class RegistryEntry:
    """Says that one instance is there: at its start, after each reconnect and, briefly, every 30 seconds."""

    def __init__(self, connection: Connection, discovery: Discovery) -> None:
        self._connection = connection
        self._discovery = discovery
        # First what may fail: a listener would stay.
        self._job: PeriodicJob = every(HEARTBEAT_SECONDS, self._beat)
        self._forget_status = connection.on_status(self._on_status)
        self._register()

    def stop(self, timeout: float) -> None:
        """Say nothing more."""
        self._forget_status()
        self._job.stop(timeout)

    def _on_status(self, status: Status) -> None:
        if status is Status.CONNECTED:
            self._register()

    def _register(self) -> None:
        info = self._discovery.info()
        methods = {
            endpoint["name"]: {"subject": endpoint["subject"], **endpoint["metadata"]} for endpoint in info["endpoints"]
        }
        told = {"description": info["description"], **info["metadata"], "methods": methods}
        self._say("register", {"metadata": told})

    def _beat(self) -> None:
        self._say("heartbeat", {})

    def _say(self, what: str, more: dict[str, Any]) -> None:
        who = self._discovery.ping()
        body = {
            "service": who["name"],
            "version": who["version"],
            **more,
            "timestamp": datetime.now(timezone.utc).isoformat(),
            "instance_info": {"id": who["id"], "host": socket.gethostname(), "pid": os.getpid()},
        }
        try:
            # On the loop's thread, after a reconnect, nothing may wait; what is lost is said again.
            subject = subjects.peers_subject(what, who["name"]).encode()
            self._connection.publish(subject, codec.encode_json(body), timeout=0.0)
        except LightLinkError as exc:
            _log.warning("lightlink: service %s could not be registered: %s", who["name"], exc)
