"""Views over everything: counts of the last while, the audit, the services that run."""

from __future__ import annotations

from collections import Counter, deque
from datetime import timedelta
from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.http.schemas import (
    AuditList,
    FailureView,
    InstanceView,
    MethodView,
    ServiceList,
    ServiceView,
    Stretch,
    Summary,
)
from lightlink.http.views.representations import audit_view

if TYPE_CHECKING:
    from lightlink.commands.model import Command
    from lightlink.http.call import Call
    from lightlink.rpc.discovery import MethodInfo, RunningService

_PAGE = 1000
# So that no question has everything read: what is older than so many commands is not counted.
_MOST = 20_000
_STRETCHES = 60
_FAILURES = 10
_DISCOVERY_SECONDS = 2.0
_BAD = (model.FAILED, model.TIMEOUT)


def get_summary(call: Call) -> Summary:
    """Count the commands of the last while; for a while again, of very many."""
    token = call.token
    sees = None if token is None else (token.clients, token.command_types)
    return call.app.recent.get(("summary", call.query.last, sees), lambda: _count(call))


def _count(call: Call) -> Summary:
    now, last = call.manager.now(), call.query.last
    found, complete = _newest(call, last)
    width = last / _STRETCHES
    counts: Counter[str] = Counter()
    failures: Counter[tuple[str, str, str]] = Counter()
    by_stretch: list[Counter[str]] = [Counter() for _ in range(_STRETCHES)]
    for command in found:
        counts[command.status] += 1
        age = (now - command.created_at).total_seconds()
        place = _STRETCHES - 1 - min(int(max(age, 0.0) / width), _STRETCHES - 1)
        by_stretch[place][_kind(command.status)] += 1
        if command.status in _BAD:
            failures[command.command_type, command.status, command.error or command.status_detail] += 1
    start = now - timedelta(seconds=last)
    return Summary(
        complete=complete,
        total=len(found),
        counts=dict(counts),
        stretches=[
            Stretch(
                at=start + timedelta(seconds=width * place),
                completed=each["completed"],
                failed=each["failed"],
                open=each["open"],
            )
            for place, each in enumerate(by_stretch)
        ],
        failures=[
            FailureView(command_type=kind, status=status, error=error, count=count)  # type: ignore[arg-type]
            for (kind, status, error), count in failures.most_common(_FAILURES)
        ],
    )


def get_audit(call: Call) -> AuditList:
    """Tell what happened in the last while; the audit tells of every agent and type."""
    call.check_unlimited("the audit")
    since = call.manager.now() - timedelta(seconds=call.query.last)
    newest = deque(call.manager.audit(since=since), maxlen=call.query.limit)
    return AuditList(total=len(newest), entries=[audit_view(entry) for entry in newest])


def list_services(call: Call) -> ServiceList:
    """Ask which services run."""
    call.check_unlimited("services")
    with call.seat():
        found = call.manager.client.services(timeout=_DISCOVERY_SECONDS)
    return ServiceList(services=[_service(each) for each in sorted(found, key=lambda each: each.name)])


def _newest(call: Call, last: float) -> tuple[list[Command], bool]:
    since = call.manager.now() - timedelta(seconds=last)
    found: list[Command] = []
    read, after = 0, None
    while read < _MOST:
        page = call.manager.list(since=since, limit=_PAGE, after=after, brief=True)
        found += [command for command in page if call.may_see(command)]
        read, after = read + len(page), page.next
        if after is None:
            return found, True
    return found, False


def _kind(status: str) -> str:
    if status == model.COMPLETED:
        return "completed"
    return "failed" if status in _BAD else "open"


def _service(service: RunningService) -> ServiceView:
    return ServiceView(
        name=service.name,
        text=service.description,
        instances=[InstanceView(id=each.id, version=each.version, host=each.host) for each in service.instances],
        methods=[_method(each) for _, each in sorted(service.methods.items())],
    )


def _method(method: MethodInfo) -> MethodView:
    stats = method.stats
    return MethodView(
        name=method.name,
        text=method.description.text,
        arguments=method.description.arguments,
        requests=stats.requests,
        errors=stats.errors,
        last_error=stats.last_error,
        average=stats.processing_time / stats.requests if stats.requests else 0.0,
        rate=stats.rate,
        p99=stats.p99,
    )
