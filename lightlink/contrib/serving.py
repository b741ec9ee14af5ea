"""Run services and agents together, until the process is asked to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lightlink.concurrency.signals import StopSignal
from lightlink.concurrency.threads import Event, join_thread, start_thread
from lightlink.errors import ClosedError

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Sequence

    from lightlink.client import Client

# How long beyond its drain something may take to end.
_GRACE_SECONDS = 5.0
_LOOK_SECONDS = 0.05


class Runnable(Protocol):
    """What services, agents and responders have in common."""

    @property
    def stage(self) -> enum.Enum:
        """How far it has come."""

    @property
    def client(self) -> Client:
        """The client it talks through."""

    def start(self) -> object:
        """Connect and begin."""

    def run(self, stop_timeout: float) -> None:
        """Serve until asked to stop."""

    def stop(self, timeout: float) -> None:
        """Finish what is held, and end."""


def serve(
    runnables: Sequence[Runnable],
    drain_timeout: float,
    *,
    on_ready: Callable[[], object],
    on_stopping: Callable[[], object],
    on_hangup: Callable[[], object] | None = None,
) -> None:
    """Run services and agents until SIGINT or SIGTERM, or until one of them ends, and drain them all at once.

    ``on_ready`` is called when all run, ``on_stopping`` before the drain of at most ``drain_timeout`` seconds, and
    ``on_hangup`` at each SIGHUP, all in this thread. Raises the first error that one of them ended with.
    """
    stop = StopSignal(hangup=on_hangup is not None)
    errors: list[BaseException] = []

    def run(each: Runnable) -> None:
        try:
            each.run(drain_timeout)
        except ClosedError as exc:
            if not stop.is_set:  # else it was stopped before it had begun
                errors.append(exc)
        except BaseException as exc:
            errors.append(exc)
        finally:
            stop.set()

    with stop.caught():
        threads = [start_thread(run, f"lightlink-serve-{number}", each) for number, each in enumerate(runnables, 1)]
        if _wait_running(runnables, stop):
            on_ready()
        stop.wait(on_hangup)
        on_stopping()
        # At once: each may take the whole time.
        stoppers = [start_thread(each.stop, "lightlink-stop", drain_timeout) for each in runnables]
        for thread in (*stoppers, *threads):
            join_thread(thread, drain_timeout + _GRACE_SECONDS)
    if errors:
        raise errors[0]


def _wait_running(runnables: Sequence[Runnable], stop: StopSignal) -> bool:
    """Wait until all run, for as long as that takes; False when the process is asked to stop before."""
    never = Event()
    while not stop.is_set:
        if all(each.stage.value == "running" for each in runnables):
            return True
        never.wait(_LOOK_SECONDS)
    return False
