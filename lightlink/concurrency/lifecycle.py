"""The life of what serves: start, run until a signal comes, stop.

Services, agents, relays, gateways, HTTP servers and the responders of a fleet stop in one order, so that nothing is
lost that was taken: first the door (subscriptions, pulls, sockets), so that new work goes to others; then what is held
is finished or handed back; then its replies go out; then the connection closes and the threads end. A second signal
during that ends the program at once.
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING

from lightlink.concurrency.signals import StopSignal
from lightlink.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Stage(enum.Enum):
    """How far it has come."""

    NEW = "not started"  # handlers are registered
    STARTING = "starting"  # some of its subscriptions may be at the server; an agent may wait for its client id
    RUNNING = "running"
    STOPPING = "stopping"  # being drained
    STOPPED = "stopped"  # it does not start again


class Lifecycle:
    """What starts, runs and stops, in the process that started it.

    Subclasses have `start` and `stop`, keep ``_stage`` and ``_pid``, and set ``_lost`` and the stop signal when they
    cannot go on.
    """

    def __init__(self) -> None:
        self._stage = Stage.NEW
        self._pid: int | None = None  # of the process that started it
        self._stop_signal = StopSignal()
        self._lost: Exception | None = None

    @property
    def stage(self) -> Stage:
        """How far it has come, in this process."""
        return Stage.NEW if self._is_in_parent else self._stage

    def start(self) -> Self:
        """Begin, on threads of the library; returns self."""
        raise NotImplementedError

    def stop(self, timeout: float = 10.0) -> None:
        """Finish what is held within ``timeout`` seconds, and leave."""
        raise NotImplementedError

    def run(self, stop_timeout: float = 10.0) -> None:
        """Start, wait for SIGINT, SIGTERM or `stop`, then drain within ``stop_timeout`` seconds and stop.

        It waits for its start as long as that takes. Raises what ended it: AuthenticationError when the server refuses
        the identity for good, AgentInUse when another agent has taken the client id, ClosedError when the client is
        closed; and the errors of `start`.
        """
        try:
            if self.stage is Stage.NEW and not self._is_in_parent:
                self._prepare()  # before signals are caught: Ctrl-C ends this wait like any other
        except ClosedError:
            if self._stop_signal.is_set:
                return  # it was stopped while it waited for a server
            raise
        try:
            # From before the first work comes: a signal that came with it would end the program, and that work.
            with self._stop_signal.caught():
                if self.stage is Stage.NEW:
                    self._start_unless_stopped()
                self._stop_signal.wait()
        finally:
            self.stop(stop_timeout)
        if self._lost is not None:
            raise self._lost

    def __enter__(self) -> Self:
        return self if self.stage is Stage.RUNNING else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare(self) -> object:
        """Do what a start may have to wait for."""

    def _start_patiently(self) -> object:
        """Start, and wait for it as long as it takes."""
        return self.start()

    def _stop_by(self, end: Callable[[float], object], timeout: float) -> None:
        """Be stopping as long as ``end(timeout)`` takes; what Ctrl-C has ended of it the next stop does."""
        was = self._stage
        try:
            self._stage = Stage.STOPPING
            end(timeout)
        except BaseException:
            self._stage = was
            raise
        self._stage = Stage.STOPPED

    def _begin_anew(self) -> None:
        """Forget, in a forked child, what belongs to the parent."""
        Lifecycle.__init__(self)

    @property
    def _is_in_parent(self) -> bool:
        """Whether it was started, and this process forked from that one since."""
        return self._pid not in (None, os.getpid())

    @property
    def _shown_stage(self) -> str:
        """The stage as a repr shows it."""
        return f"in the parent process {self._pid}" if self._is_in_parent else self._stage.value

    def _start_unless_stopped(self) -> None:
        try:
            self._start_patiently()
        except ClosedError:
            if not self._stop_signal.is_set:
                raise
