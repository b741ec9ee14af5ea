"""Run the parts of the commands one step at a time, in any order, on a compare-and-set store in memory.

A step is one operation on the store, or the middle of a handler. Whoever takes part is an actor with a thread of its
own; one of them runs at a time, and a schedule says which. An operation may be done and its answer lost, or not be done
at all, a read may bring what was true before, and an instance of an agent may die at any step.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.commands import model
from lightlink.commands.agent.context import CommandContext
from lightlink.commands.agent.delivery import Delivery
from lightlink.commands.agent.execution import Execution
from lightlink.commands.agent.handlers import Handlers
from lightlink.commands.manager.cancel import Canceller
from lightlink.commands.manager.expiry import Expiry
from lightlink.commands.store.access import Conflict
from lightlink.errors import CommandEnded, StoreUnavailable
from lightlink.jetstream.cursor import Delivery as StreamDelivery
from lightlink.jetstream.pull import Pulled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.commands.model import RequestRecord, StatusRecord
    from lightlink.commands.store.store import StatusWrite

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
TIMEOUT = 30.0
_PATIENCE = 20.0
_NOWHERE = StreamDelivery(b"", 1, b"", None, 0, 0, b"", 1)


class Died(BaseException):
    """The process of an actor was killed."""


class Actor:
    """Something that runs step by step. ``instance`` is the agent's it belongs to, if any."""

    def __init__(self, world: World, job: Callable[[], object], instance: Instance | None) -> None:
        self.instance = instance
        self.done = False
        self.fault = ""
        self._world = world
        self._job = job
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self, fault: str = "") -> None:
        """Let it run to its next step, which goes wrong as ``fault`` says."""
        self.fault = fault
        self._go.release()
        assert self._back.acquire(timeout=_PATIENCE), "an actor hangs"

    def pause(self) -> str:
        """Wait for the schedule; return what is to go wrong. Raises Died."""
        self._back.release()
        assert self._go.acquire(timeout=_PATIENCE)
        if self.instance is not None and self.instance.dead:
            raise Died
        fault, self.fault = self.fault, ""
        return fault

    def _run(self) -> None:
        assert self._go.acquire(timeout=_PATIENCE)
        self._world.local.actor = self
        try:
            self._job()
        except Died:
            pass
        except BaseException as exc:
            self._world.failures.append(exc)
        finally:
            self.done = True
            self._back.release()


class Store:
    """Statuses with compare-and-set, each operation a step."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.timeout = 5.0
        self.clock = SimpleNamespace(now=lambda: world.now)
        self.connection: Any = SimpleNamespace(
            clock=self.clock,
            session=SimpleNamespace(notifier=SimpleNamespace(post=lambda *_: None)),
            publish=lambda *_: None,
        )

    def read_status(self, client_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        fault = self._world.pause()
        if fault == "stale":
            return self._world.before_last(command_id)
        if fault:
            raise StoreUnavailable("reading", "lost")
        return self._world.last(command_id)

    def read_written_status(self, client_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        if self._world.pause():
            raise StoreUnavailable("reading", "lost")
        return self._world.last(command_id)

    def read_statuses(self, ids: Sequence[tuple[str, str]]) -> list[tuple[StatusRecord | None, int]]:
        return [self.read_status(*each) for each in ids]

    def write_status(self, client_id: str, command_id: str, record: StatusRecord, expected: int) -> int:
        fault = self._world.pause()
        if fault == "not sent":
            raise StoreUnavailable("writing", "not connected", False)
        if self._world.last(command_id)[1] != expected:
            raise Conflict(command_id)
        revision = self._world.store(command_id, record)
        if fault == "answer lost":
            raise StoreUnavailable("writing", "no answer", True)
        return revision

    def write_statuses(self, writes: Sequence[StatusWrite]) -> list[int | None]:
        revisions: list[int | None] = []
        for write in writes:
            try:
                revisions.append(self.write_status(write.client_id, write.command_id, write.record, write.expected))
            except Conflict:
                revisions.append(None)
        return revisions


class Stopped:
    """Whether an instance has stopped; that does not take any time to wait for."""

    def __init__(self) -> None:
        self.is_set = False

    def wait(self, _: float) -> bool:
        return self.is_set


@attrs.define(eq=False)
class Instance:
    """A process of the agent."""

    name: str
    world: World
    dead: bool = False
    held: set[str] = attrs.field(factory=set)
    stopped: Stopped = attrs.field(factory=Stopped)
    execution: Execution = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        handlers = Handlers(None)
        handlers.add("plain", self.world.handler, idempotent=False)
        handlers.add("again", self.world.handler, idempotent=True)
        link: Any = SimpleNamespace(instance=self.name, connection=self.world.db.connection, statuses=self.world.db)
        self.execution = Execution(link, self, handlers, self, self.stopped)  # type: ignore[arg-type]

    def put(self, job: Callable[..., object], *args: object) -> None:
        """Stand in for the thread that reports what overruns."""
        self.world.act(lambda: job(*args), self)

    def ack(self, delivery: Delivery) -> None:
        """Take note that a command has ended."""
        command_id = delivery.request.command_id
        last, _ = self.world.last(command_id)
        if model.is_open(last):
            self.world.failures.append(AssertionError(f"{command_id} was acknowledged before it ended"))
        self.held.discard(command_id)
        self.world.acked.add(command_id)

    def hand_back(self, delivery: Delivery) -> None:
        """Let a command be delivered again."""
        self.held.discard(delivery.request.command_id)

    forget = hand_back


class World:
    """One client id, its commands, the instances of its agent and two managers."""

    def __init__(self) -> None:
        self.now = NOON
        self.requests: dict[str, RequestRecord] = {}
        self.history: dict[str, list[tuple[int, StatusRecord]]] = {}
        self.acked: set[str] = set()
        self.runs: dict[str, list[str]] = {}
        self.actors: list[Actor] = []
        self.instances: list[Instance] = []
        self.failures: list[BaseException] = []
        self.local = threading.local()
        store: Any = Store(self)
        self.db = store
        self._revision = 0
        self._cancellers = [Canceller(self.db, name) for name in ("first", "second")]
        self._expiries = [Expiry(self.db, name) for name in ("first", "second")]

    # The store ------------------------------------------------------------------------------------------------------

    def pause(self) -> str:
        """Make a step of the actor that runs."""
        actor: Actor = self.local.actor
        return actor.pause()

    def last(self, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return the last status and its revision."""
        history = self.history.get(command_id)
        return (None, 0) if not history else (history[-1][1], history[-1][0])

    def before_last(self, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return the status before the last one, as a replica that lags would."""
        history = self.history.get(command_id, [])[:-1]
        return (None, 0) if not history else (history[-1][1], history[-1][0])

    def store(self, command_id: str, record: StatusRecord) -> int:
        """Store a status."""
        self._revision += 1
        self.history.setdefault(command_id, []).append((self._revision, record))
        if record.cancel_requested and not record.ended:
            for instance in self.instances:
                if instance.name == record.instance and not instance.dead:
                    instance.execution.cancel(command_id)
        return self._revision

    def handler(self, context: CommandContext) -> str:
        """Stand in for what users do."""
        self.runs[context.command_id].append(self.local.actor.instance.name)
        self.pause()
        context.check()
        return "done"

    # What may happen ------------------------------------------------------------------------------------------------

    def send(self, idempotent: bool) -> None:
        """Store another command."""
        number = str(len(self.requests))
        kind = "again" if idempotent else "plain"
        named: dict[str, Any] = {"command_id": number, "client_id": "a", "command_type": kind, "created_at": self.now}
        self.requests[number] = model.RequestRecord(timeout=TIMEOUT, **named)
        self.runs[number] = []

    def start(self) -> Instance:
        """Start another process of the agent, beside those there are."""
        self.instances.append(Instance(f"instance-{len(self.instances)}", self))
        return self.instances[-1]

    def kill(self, instance: Instance) -> None:
        """End a process at whatever it does."""
        instance.dead = True
        instance.held.clear()

    def deliver(self, instance: Instance, command_id: str) -> None:
        """Hand a command to an instance, unless that holds it, or it was acknowledged."""
        if instance.dead or command_id in instance.held or command_id in self.acked:
            return
        instance.held.add(command_id)
        delivery = Delivery(self.requests[command_id], Pulled(_NOWHERE, b""))
        self.act(lambda: instance.execution.process(delivery), instance)

    def cancel(self, manager: int, command_id: str) -> None:
        """Have one of the managers cancel a command."""

        def job() -> None:
            with contextlib.suppress(CommandEnded, StoreUnavailable):  # what a caller would be told
                self._cancellers[manager].cancel(self.requests[command_id], "", None)

        self.act(job)

    def expire(self, manager: int) -> None:
        """Have one of the managers write down what is overdue."""
        overdue = [request for request in self.requests.values() if model.is_overdue(request, self.now)]

        def job() -> None:
            with contextlib.suppress(StoreUnavailable):  # the next sweep tries again
                self._expiries[manager].settle(overdue)

        if overdue:
            self.act(job)

    def overrun(self) -> None:
        """Let every instance look at its deadlines."""
        for instance in self.instances:
            for running in list(instance.execution.running.values()):
                late = model.is_overdue(running.delivery.request, self.now, grace=timedelta(0))
                if late and not instance.dead and running.last is not None and not running.overrun:
                    running.overrun = True
                    running.context.cancelled.set()
                    instance.put(instance.execution._report_overrun, running)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def act(self, job: Callable[[], object], instance: Instance | None = None) -> None:
        """Add an actor; it does nothing before its first step."""
        self.actors.append(Actor(self, job, instance))

    def step(self, number: int, fault: str = "") -> None:
        """Let one of the actors make a step."""
        alive = [actor for actor in self.actors if not actor.done]
        if alive:
            alive[number % len(alive)].step(fault)

    def settle(self) -> None:
        """Let everything come to its end, with one more instance, and all time needed."""
        self._finish()
        survivor = self.start()
        for _ in range(3):
            for command_id in self.requests:
                self.deliver(survivor, command_id)
            self._finish()
        self.pass_time(TIMEOUT + model.GRACE.total_seconds() + 1)
        self.overrun()
        self.expire(0)
        self._finish()

    def _finish(self) -> None:
        for _ in range(10_000):
            alive = [actor for actor in self.actors if not actor.done]
            if not alive:
                return
            alive[0].step()
        raise AssertionError("it never comes to an end")

    def close(self) -> None:
        """End every actor."""
        for instance in self.instances:
            instance.dead = True
        self._finish()
