"""Wait until a service is there: the answer to a start in any order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import ServiceUnavailable
from lightlink.protocol import subjects
from lightlink.rpc.discovery import Requirement, RunningService, find_services
from lightlink.validators import integer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.connection.connection import Connection

_PAUSE_FIRST, _PAUSE_MOST = 0.05, 1.0


def wait_for_service(
    connection: Connection, name: str, methods: Sequence[str], version: str, instances: int, timeout: float
) -> RunningService:
    """Return a service once so many instances of a version have all the methods; see `Client.wait_for`."""
    for method in methods:
        subjects.method_name(method)
    integer("instances", instances)
    required = Requirement(version)
    deadline = Deadline(timeout)
    pause = _PAUSE_FIRST
    while True:
        left = deadline.remaining()
        found = find_services(connection, name, max(min(left, connection.options.timeout), 0.05))
        missing = _missing(found, methods, required, instances)
        if not missing:
            return found[0]
        if deadline.remaining() <= pause:
            raise ServiceUnavailable(name, ", ".join(methods) or "any method", f"{missing} within {timeout:g} s")
        time.sleep(pause)
        pause = min(pause * 2, _PAUSE_MOST)


def _missing(found: list[RunningService], methods: Sequence[str], required: Requirement, wanted: int) -> str:
    """Return what is missing, in words, or nothing."""
    if not found:
        return "no instance has answered"
    fitting = [each for each in found[0].instances if required.takes(each.version)]
    complete = [each for each in fitting if each.methods.issuperset(methods)]
    if len(complete) >= wanted:
        return ""
    if len(fitting) < wanted:
        versions = ", ".join(found[0].versions)
        return f"{len(fitting)} of {wanted} instances of version {required.text or 'any'} were there (found {versions})"
    absent = sorted({method for method in methods if not all(method in each.methods for each in fitting)})
    return f"{len(complete)} of {wanted} instances had the methods (missing {', '.join(absent)})"
