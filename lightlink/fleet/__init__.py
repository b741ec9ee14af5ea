"""A fleet: thousands of agents, let in by certificate as they connect, enrolled by token, revoked in a second.

It runs on a nats-server in operator mode; who may do what is decided by responders (auth callout, ADR-26). For small
installations a directory of certificates and one configuration file are enough: `lightlink.certs`. docs/fleet.md says
when to change. Needs the extra ``fleet``.
"""

from __future__ import annotations

from lightlink.fleet.admin import Fleet
from lightlink.fleet.audit import Entry
from lightlink.fleet.config import fleet_config
from lightlink.fleet.directory import FleetDirectory
from lightlink.fleet.machine import AgentFiles, enroll, keep_renewed, renew
from lightlink.fleet.records import Identity, TokenRecord
from lightlink.fleet.responder import Responder

__all__ = [
    "AgentFiles",
    "Entry",
    "Fleet",
    "FleetDirectory",
    "Identity",
    "Responder",
    "TokenRecord",
    "enroll",
    "fleet_config",
    "keep_renewed",
    "renew",
]
