"""Ask what services there are, on the caller's side of NATS service discovery (ADR-32).

Answers come from any implementation: what one leaves out, or writes as null, counts as not told.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink import describe
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.mailbox import MessageQueue
from lightlink.describe import P99, RATE, Description
from lightlink.errors import DecodeError, InvalidOption
from lightlink.protocol import codec, html, subjects
from lightlink.protocol.ids import new_inbox
from lightlink.validators import integer

if TYPE_CHECKING:
    import inspect
    from collections.abc import Iterable, Sequence

    from lightlink.connection.connection import Connection

# How long nothing more comes before all is thought to have come, unless the number of answers is known.
QUIET_SECONDS = 0.25
# No rate and no time in nanoseconds is higher.
_MOST_TOLD = 2**63
_MAX_ANSWERS, _MAX_BYTES = 100_000, 256 * 1024 * 1024
_REQUIREMENT = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+){0,2})\s*")
_NUMBERS = re.compile(r"\d+(?:\.\d+){0,2}")


class _Endpoint(msgspec.Struct):
    name: str
    subject: str | None = None
    metadata: dict[str, Any] | None = None
    num_requests: int | None = None
    num_errors: int | None = None
    last_error: Any = None
    processing_time: int | None = None
    data: Any = None


class _Answer(msgspec.Struct):
    name: str
    id: str
    version: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    started: str | None = None
    endpoints: list[_Endpoint] | None = None


@attrs.frozen(kw_only=True)
class MethodStats:
    """What a method has done since its instances started; ``processing_time`` in seconds.

    ``rate`` is how many requests a second there were in the last minute, ``p99`` how many seconds 99 of 100 of the last
    requests took at most, in the slowest instance: 0 and None where the service does not tell.
    """

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_time: float = 0.0
    rate: float = 0.0
    p99: float | None = None


@attrs.frozen(kw_only=True)
class MethodInfo:
    """A method of a service: how it is called, what is told of it, and what all its instances have done."""

    name: str
    subject: str = ""
    description: Description = attrs.field(factory=Description)
    metadata: dict[str, str] = attrs.field(factory=dict, repr=False)
    stats: MethodStats = MethodStats()

    @property
    def signature(self) -> inspect.Signature:
        """How it is called from Python."""
        return self.description.signature()


@attrs.frozen(kw_only=True)
class ServiceInstance:
    """One running instance of a service; ``started`` is None where it does not tell."""

    id: str
    version: str = ""
    host: str = ""
    started: datetime | None = None
    metadata: dict[str, str] = attrs.field(factory=dict, repr=False)
    methods: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class RunningService:
    """A service as it runs: its instances, and its methods by name with what all instances have done."""

    name: str
    description: str = ""
    instances: tuple[ServiceInstance, ...] = ()
    methods: dict[str, MethodInfo] = attrs.field(factory=dict)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that run, sorted."""
        return tuple(sorted({each.version for each in self.instances}, key=_numbers))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that it runs on, as far as they are told, sorted."""
        return tuple(sorted({each.host for each in self.instances if each.host}))

    @property
    def requests(self) -> int:
        """How many requests all its methods had."""
        return sum(method.stats.requests for method in self.methods.values())

    @property
    def digest(self) -> str:
        """What changes when a method, or what is told of one, does; empty where nothing is told."""
        told = [(name, method.description.digest) for name, method in self.methods.items()]
        return describe.digest_of_all(told) if any(digest for _, digest in told) else ""

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        methods = {name: f"{name}{method.signature}" for name, method in sorted(self.methods.items())}
        told = {"versions": ", ".join(self.versions), "instances": len(self.instances), "requests": self.requests}
        return html.facts(self.name, {**told, **methods})


def find_services(
    connection: Connection, name: str | None, timeout: float, expect: int | None = None
) -> list[RunningService]:
    """Return what runs, by name: all that answers until nothing has come for a moment, or ``expect`` instances have.

    It takes ``timeout`` seconds at most.
    """
    target = () if name is None else (subjects.service_name(name),)
    asked = [subjects.discovery_subject(verb, *target) for verb in ("INFO", "STATS")]
    answers = gather(connection, asked, timeout, expect)
    infos, stats = (_by_instance(each) for each in answers)
    found: dict[str, list[str]] = {}
    for instance, info in infos.items():
        if name is not None and info.name != name:
            continue  # an answer in another service's name
        found.setdefault(info.name, []).append(instance)
    return [
        _service(each, [infos[one] for one in instances], [stats[one] for one in instances if one in stats])
        for each, instances in sorted(found.items())
    ]


def gather(
    connection: Connection, questions: Sequence[str], timeout: float, expect: int | None = None
) -> list[list[bytes]]:
    """Return all answers to each question: until nothing has come for a moment, or ``expect`` to each have."""
    if expect is not None:
        integer("expect", expect)
    deadline = Deadline(timeout)
    box = MessageQueue(_MAX_ANSWERS, _MAX_BYTES)
    inbox = new_inbox(connection.options.inbox_prefix)

    def arrive(subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        box.put((int(subject.rpartition(b".")[2]), data, headers), len(data) + len(headers or b""))

    connection.session.loop.refuse_own_thread()
    route = connection.subscribe(f"{inbox}*", "", arrive)
    answers: list[list[bytes]] = [[] for _ in questions]
    try:
        for number, question in enumerate(questions):
            connection.publish(question.encode(), b"", f"{inbox}{number}".encode())
        _collect(box, answers, deadline, expect)
    finally:
        connection.session.unroute(route, 1.0)
    return answers


def _collect(box: MessageQueue, answers: list[list[bytes]], deadline: Deadline, expect: int | None) -> None:
    refused: set[int] = set()  # the questions that nobody hears
    until = deadline.at
    while len(refused) < len(answers):
        try:
            number, data, headers = box.get(until)
        except TimeoutError:
            return
        if codec.is_no_responders(data, headers):
            refused.add(number)
        else:
            answers[number].append(data)
        if expect is None:
            until = deadline.at_most(QUIET_SECONDS)
        elif all(len(each) >= expect for each in answers):
            return


def _by_instance(answers: Iterable[bytes]) -> dict[str, _Answer]:
    found = {}
    for data in answers:
        try:
            answer = codec.decode(data, "$SRV", _Answer)
        except DecodeError:
            continue  # whatever answers there is no service
        found[answer.id] = answer
    return found


def _service(name: str, infos: list[_Answer], stats: list[_Answer]) -> RunningService:
    counted: dict[str, MethodStats] = {}
    for answer in stats:
        for endpoint in answer.endpoints or ():
            counted[endpoint.name] = _added(counted.get(endpoint.name, MethodStats()), endpoint)
    started = {answer.id: _instant(answer.started) for answer in stats}
    # Of several versions the newest tells what the methods are.
    infos.sort(key=lambda info: (_numbers(info.version or ""), info.id))
    methods: dict[str, MethodInfo] = {}
    for info in infos:
        for endpoint in info.endpoints or ():
            metadata = _texts(endpoint.metadata)
            methods[endpoint.name] = MethodInfo(
                name=endpoint.name,
                subject=endpoint.subject or "",
                description=describe.read(metadata),
                metadata={key: value for key, value in metadata.items() if key not in describe.KEYS},
                stats=counted.get(endpoint.name, MethodStats()),
            )
    instances = tuple(_instance(info, started.get(info.id)) for info in infos)
    return RunningService(name=name, description=infos[-1].description or "", instances=instances, methods=methods)


def _instance(info: _Answer, started: datetime | None) -> ServiceInstance:
    metadata = _texts(info.metadata)
    return ServiceInstance(
        id=info.id,
        version=info.version or "",
        host=metadata.get("host", ""),
        started=started,
        metadata=metadata,
        methods=frozenset(endpoint.name for endpoint in info.endpoints or ()),
    )


def _added(stats: MethodStats, endpoint: _Endpoint) -> MethodStats:
    p99 = _told(endpoint, P99)
    return MethodStats(
        requests=stats.requests + (endpoint.num_requests or 0),
        errors=stats.errors + (endpoint.num_errors or 0),
        last_error=stats.last_error or (str(endpoint.last_error) if endpoint.last_error else ""),
        processing_time=stats.processing_time + (endpoint.processing_time or 0) / 1e9,
        rate=stats.rate + (_told(endpoint, RATE) or 0.0),
        p99=stats.p99 if p99 is None else max(stats.p99 or 0.0, p99 / 1e9),
    )


def _told(endpoint: _Endpoint, name: str) -> float | None:
    """Return a number that a service of ours tells in the data of its statistics; others put there what they like."""
    value = endpoint.data.get(name) if isinstance(endpoint.data, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST_TOLD:
        return None
    return float(value)


def _texts(metadata: dict[str, Any] | None) -> dict[str, str]:
    return {name: value for name, value in (metadata or {}).items() if isinstance(value, str)}


def _instant(text: str | None) -> datetime | None:
    try:
        instant = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=timezone.utc)


# Versions -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Requirement:
    """What a version has to be: ``>=1.2``, ``>=1.2,<2``, ``==1.4.0``; an empty text takes every one."""

    text: str

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.text, str) or not all(map(_REQUIREMENT.fullmatch, self._parts())):
            raise InvalidOption("version", "must be like '>=1.2' or '>=1.2,<2'", self.text)

    def takes(self, version: str) -> bool:
        """Tell whether a version, whose pre-release and build do not count, is one of those."""
        return all(_holds(_numbers(version), part) for part in self._parts())

    def _parts(self) -> list[str]:
        return self.text.split(",") if self.text else []


def _holds(version: tuple[int, ...], part: str) -> bool:
    match = _REQUIREMENT.fullmatch(part)
    assert match is not None
    order = (version > _numbers(match[2])) - (version < _numbers(match[2]))
    return order in {">=": (0, 1), "<=": (0, -1), "==": (0,), "!=": (1, -1), ">": (1,), "<": (-1,)}[match[1]]


def _numbers(version: str) -> tuple[int, ...]:
    """Return the three numbers of a version, 0 for those that are not there."""
    found = _NUMBERS.match(version)
    numbers = [int(each) for each in found[0].split(".")] if found else []
    return tuple([*numbers, 0, 0, 0][:3])
