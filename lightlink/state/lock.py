"""One of many: locks that their holder's death ends, and a leader among equals, over a key with a time to live.

``lock.token`` is a fencing number: each later holder of the lock has a higher one. A holder that was stopped, or cut
off, may believe for a moment longer that it has the lock; where that counts, its number tells what it then does apart.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.threads import Condition, Event, start_thread, wait_in_parts
from lightlink.errors import (
    ClosedError,
    InvalidOption,
    LightLinkError,
    LockHeld,
    NotReady,
    RevisionConflict,
    StateError,
    StateNotFound,
)
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_token
from lightlink.validators import seconds, wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.state.bucket import StateBucket

_log = logging.getLogger("lightlink")

BUCKET = subjects.LOCKS_BUCKET
_LEAST_TTL = 1.0  # the server's
# How often it is renewed and looked at within its time, and how often a taken one is tried.
_LOOKS = 6
_TRIES = 4


class Lock:
    """A lock by name, made by `Client.lock`. A context manager: ``with client.lock("nightly-report") as lock:``.

    It is gone ``ttl`` seconds after its holder last renewed it, which happens by itself; ``lost`` is set when that
    could not be done in time. Not for threads of one process to share: each takes one of its own.
    """

    def __init__(self, bucket: StateBucket[Any], name: str, ttl: float, wait: float, owner: str) -> None:
        self.name = name
        self.ttl = seconds("ttl", ttl)
        if self.ttl < _LEAST_TTL:
            raise InvalidOption("ttl", f"must be at least {_LEAST_TTL:g} second", ttl)
        self._bucket = bucket
        self._wait = wait_limit(wait)
        self._owner = owner
        self._begin()

    def _begin(self) -> None:
        """Hold nothing, in this process."""
        self.lost = Event()
        self._pid = os.getpid()
        self._who = {"owner": self._owner, "host": socket.gethostname(), "pid": self._pid}
        self._id = ""
        self._token = 0
        self._revision = 0
        self._valid_until = 0.0  # of `time.monotonic`: the server's time began later
        self._guard = Condition()
        self._job: PeriodicJob | None = None
        self._stopping = Event()

    @property
    def token(self) -> int:
        """The fencing number of the last acquisition; it grows with each, in any process."""
        if not self._token:
            raise NotReady(f"lock {self.name!r}", "was never taken")
        return self._token

    @property
    def is_held(self) -> bool:
        """Whether it is held still, as far as can be known here without asking."""
        if self._pid != os.getpid() or self._revision == 0:
            return False  # the parent's lock is the parent's, whatever a forked child does
        return not self.lost.is_set() and time.monotonic() < self._valid_until

    def acquire(self, wait: float | None = None) -> bool:
        """Take it, waiting up to ``wait`` seconds (by default as it was made); tell whether it was taken.

        Raises NotReady where it is held already, StateError.
        """
        if self.is_held:
            raise NotReady(f"lock {self.name!r}", "is held already")
        deadline = Deadline(self._wait if wait is None else wait_limit(wait))
        if self._pid != os.getpid():
            self._begin()
        self._stopping.clear()
        while not self._take():
            remaining = deadline.remaining()
            if remaining <= 0 or wait_in_parts(self._stopping.wait, min(self.ttl / _TRIES, remaining)):
                return False
        return True

    def release(self) -> None:
        """Give it back, unless somebody else has it by now. Idempotent; ends an `acquire` that waits elsewhere.

        In a forked child it does nothing about a lock that the parent has taken.
        """
        if self._pid != os.getpid():
            return
        self._stopping.set()
        if self._job is not None:
            self._job.stop(self.ttl)
        with self._guard:
            revision = self._revision
            self._valid_until = 0.0
        if revision and not self.lost.is_set():
            with suppress(RevisionConflict):  # its time was over, and somebody else has it
                self._bucket.delete(self.name, revision=revision)
        with self._guard:
            if self._revision == revision:
                self._revision = 0  # not before: an outage and Ctrl-C leave it to the next release

    def holder(self) -> dict[str, Any] | None:
        """Return who has it (``owner``, ``host``, ``pid``), None for nobody; raises StateError."""
        try:
            found = self._bucket.get(self.name)
        except StateNotFound:
            return None
        return {name: value for name, value in found.items() if name != "id"} if isinstance(found, dict) else {}

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LockHeld(self.name, self.holder() or {})
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except LightLinkError as exc:
            if kind is None:
                raise
            _log.info("lightlink: lock %r ends by its time: %s", self.name, exc)  # the block's own error goes on

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} {f'held with token {self._token}' if self.is_held else 'not held'}>"

    # ------------------------------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        """Try once."""
        self._id = new_token()
        asked_at = time.monotonic()
        try:
            revision = self._bucket.create(self.name, {"id": self._id, **self._who}, ttl=self.ttl)
        except RevisionConflict:
            return False
        except StateError as exc:
            revision = self._stored_after_all(exc)
            if not revision:
                return False
        if self._job is not None:
            self._job.stop(0)  # of a lock that was lost
        self.lost.clear()
        with self._guard:
            self._token = self._revision = revision
            self._valid_until = asked_at + self.ttl
        try:
            self._job = every(self.ttl / _LOOKS, self._look)
        except BaseException:
            self.release()  # nobody would renew it
            raise
        return True

    def _stored_after_all(self, error: StateError) -> int:
        """Return the revision of a write of which nobody said what became of it; 0 when it was not stored."""
        if not error.unknown:
            raise error
        try:
            entry = self._bucket.entry(self.name)
        except StateNotFound:
            return 0
        return entry.revision if isinstance(entry.value, dict) and entry.value.get("id") == self._id else 0

    def _look(self) -> None:
        """Renew it, or say that it is lost."""
        with self._guard:
            revision, left = self._revision, self._valid_until - time.monotonic()
        if not revision or self.lost.is_set():
            return
        if left <= 0:
            self._lose("it could not be renewed in time")
            return
        asked_at = time.monotonic()
        try:
            body = {"id": self._id, **self._who}
            renewed = self._bucket.update(self.name, body, revision=revision, ttl=self.ttl, timeout=max(left / 2, 0.01))
        except RevisionConflict:
            self._settle_conflict()
        except ClosedError:
            self._lose("the client was closed")
        except LightLinkError as exc:
            _log.info("lightlink: lock %r could not be renewed yet: %s", self.name, exc)
        else:
            self._note(renewed, asked_at)

    def _settle_conflict(self) -> None:
        """Tell a renewal whose answer was lost from somebody else's lock."""
        with suppress(LightLinkError):
            entry = self._bucket.entry(self.name)
            if isinstance(entry.value, dict) and entry.value.get("id") == self._id:
                with self._guard:
                    self._revision = entry.revision if self._revision else 0
                return
            self._lose("somebody else has it")

    def _note(self, revision: int, asked_at: float) -> None:
        with self._guard:
            if self._revision:
                self._revision = revision
                self._valid_until = asked_at + self.ttl

    def _lose(self, reason: str) -> None:
        _log.warning("lightlink: lock %r is lost: %s", self.name, reason)
        self.lost.set()


class Leader:
    """Takes part in the election of one of many, made by `Client.leader`, until it is stopped. A context manager.

    ``on_elected(lock)`` is called once this one leads, ``on_lost()`` once it does so no more, both on a thread of its
    own: one after the other. What leads does its work elsewhere, and looks at ``lock.lost``.
    """

    def __init__(
        self, lock: Lock, on_elected: Callable[[Lock], object] | None, on_lost: Callable[[], object] | None
    ) -> None:
        for option, function in (("on_elected", on_elected), ("on_lost", on_lost)):
            if function is not None and not callable(function):
                raise InvalidOption(option, "is not callable", type(function).__name__)
        self._lock = lock
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._stopped = Event()
        self._ended = Event()
        self._retired = Event()
        try:
            start_thread(self._run, f"lightlink-leader-{lock.name}")
        except BaseException:
            # Interrupted: it may run already, or begin yet, and nobody would be there to stop it.
            self._stopped.set()
            self._retired.set()
            raise

    @property
    def is_leader(self) -> bool:
        """Whether this one leads, as far as can be known here without asking."""
        return self._lock.is_held

    @property
    def lock(self) -> Lock:
        """The lock that the leader holds."""
        return self._lock

    def resign(self) -> None:
        """Let another lead, if there is one; this one stays a candidate."""
        self._retired.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Take no part any more, and let another lead at once; waits ``timeout`` seconds for ``on_lost``."""
        self._stopped.set()
        self._retired.set()
        wait_in_parts(self._ended.wait, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        pause = self._lock.ttl / _TRIES
        try:
            while not self._stopped.is_set():
                try:
                    elected = self._lock.acquire(wait=0)
                except ClosedError:
                    return
                except LightLinkError as exc:
                    _log.info("lightlink: the election of %r waits: %s", self._lock.name, exc)
                    elected = False
                if elected:
                    self._lead(pause)
                else:
                    self._stopped.wait(pause)
        finally:
            self._ended.set()

    def _lead(self, pause: float) -> None:
        self._retired.clear()
        try:
            _tell(self._on_elected, self._lock)
            while not (self._retired.is_set() or self._stopped.is_set() or self._lock.lost.wait(min(pause, 0.1))):
                pass
            _tell(self._on_lost)
        finally:
            with suppress(LightLinkError):  # its time ends it
                self._lock.release()
        if not self._stopped.is_set():
            self._stopped.wait(pause)  # another's turn


def _tell(function: Callable[..., object] | None, *args: Any) -> None:
    try:
        if function is not None:
            function(*args)
    except BaseException:  # SystemExit too: nobody else would end the lock
        _log.exception("lightlink: %r failed", function)
