"""A real nats-server as a child process, for development and tests."""

from __future__ import annotations

from lightlink.server.binary import MINIMUM_VERSION, SERVER_VARIABLE, find_server, server_version
from lightlink.server.cluster import EmbeddedCluster
from lightlink.server.embedded import EmbeddedServer

__all__ = [
    "MINIMUM_VERSION",
    "SERVER_VARIABLE",
    "EmbeddedCluster",
    "EmbeddedServer",
    "find_server",
    "server_version",
]
