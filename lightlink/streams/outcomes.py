"""Settle delivered events: acknowledge, retry, defer, make dead letters, NAK."""

from __future__ import annotations

import logging
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

import attrs

from lightlink import logs
from lightlink.concurrency.deadline import NEVER, Deadline
from lightlink.concurrency.forks import run_handler
from lightlink.concurrency.threads import RLock
from lightlink.errors import DecodeError, InvalidOption, Later, LightLinkError, Reject
from lightlink.protocol.text import text_of
from lightlink.streams.lanes import Lanes
from lightlink.streams.message import StoredMessage, as_bytes, read_stored
from lightlink.validators import FOR_EVER, seconds_or_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.jetstream.pull import Pulled
    from lightlink.streams.graveyard import Graveyard
    from lightlink.streams.job import Job, Settings

_log = logging.getLogger("lightlink")

# Seconds until storing a dead letter, or reading a count of attempts, is tried again.
STORE_RETRY_SECONDS = 5.0


class Outcomes:
    """Settles the events of one consumption, each once: by its handler or by its timeout, the first of them.

    ``run(job)`` queues an event for a worker, ``run_after(seconds, job)`` does so later. ``counts`` are those of
    `Consumption`, ``seconds`` is the total time in handlers.
    """

    def __init__(
        self,
        stream: str,
        name: str,
        settings: Settings,
        graveyard: Graveyard | None,
        run: Callable[[Job], object],
        run_after: Callable[[float, Job], object],
    ) -> None:
        self.counts = dict.fromkeys(("delivered", "done", "retried", "dead", "stuck"), 0)
        self.seconds = 0.0
        self.is_stopping = False
        self._excuse_until = NEVER
        self.lanes: Lanes[Job] = Lanes()
        self._facts = {"stream": stream, "consumer": name}
        self._name = name
        self._settings = settings
        self._graveyard = graveyard
        self._run = run
        self._run_after = run_after
        self._running: set[Job] = set()
        self._resting: set[Job] = set()
        self._lock = RLock()

    def begin_stop(self, timeout: float) -> None:
        """Start no handler any more; take at most ``timeout`` seconds to have it known what counts as no attempt."""
        self._excuse_until = Deadline(timeout)
        self.is_stopping = True

    def begin(self, job: Job) -> None:
        """Start the time of an event's handler."""
        job.is_overdue = False
        job.started = time.monotonic()
        self._running.add(job)
        self._resting.discard(job)

    def resting(self) -> list[Job]:
        """Return the events at the head of their lanes that wait here for their next attempt."""
        return list(self._resting)

    def late(self) -> list[Job]:
        """Return the events whose handlers have exceeded the timeout."""
        instant = time.monotonic()
        with self._lock:
            running = tuple(self._running)
        return [job for job in running if instant - (job.started or instant) > self._settings.timeout]

    def done(self, job: Job) -> None:
        """Acknowledge an event, unless its timeout came first."""
        if self._settle(job):
            self.counts["done"] += 1
            self._finish(job, job.source.pulls.ack)

    def raised(self, job: Job, error: BaseException) -> None:
        """Settle an event by the exception of its handler or of its decoding."""
        if isinstance(error, Later):
            try:
                self._later(job, seconds_or_zero("delay", error.delay, FOR_EVER))
                return
            except InvalidOption as exc:
                error = exc
        if isinstance(error, (Reject, DecodeError)) and self._graveyard is not None:
            self.bury(job, text_of(error) or type(error).__name__, _attempts_of(job))
        else:
            text = f"{type(error).__name__}: {text_of(error)}"
            _log.error("lightlink: the handler of %s failed: %s", self._name, text, exc_info=error)
            self.failed(job, text)

    def failed(self, job: Job, error: str) -> None:
        """Try an event again, or make it a dead letter if this was its last attempt."""
        if not self._settle(job):
            return
        attempt = _attempts_of(job)
        if self._settings.attempts is not None and attempt >= self._settings.attempts:
            self._bury(job, error, attempt)
            return
        self.counts["retried"] += 1
        job.tries += 1
        if self._hands_back:
            self._excuse(job)
        self.again(job, self._settings.delay(attempt))

    def again(self, job: Job, delay: float) -> None:
        """Retry an event: here if it blocks those behind it, else by redelivery to any process."""
        if self._hands_back:
            job.source.pulls.hand_back(job.pulled, delay)
            self.leave_lane(job)
            return
        job.is_settled = False
        self._resting.add(job)
        self._run_after(delay, job)

    def bury(self, job: Job, error: str, attempts: int) -> None:
        """Make an event a dead letter."""
        if self._settle(job):
            self._bury(job, error, attempts)

    def give_back(self, job: Job) -> None:
        """NAK an event that is not being handled, unless that was done; what was never tried counts as no attempt."""
        if self._settle(job):
            self._excuse(job)
            job.source.pulls.hand_back(job.pulled)

    def release(self, job: Job) -> None:
        """Release an event without an acknowledgement: the server redelivers it after ``ack_wait``."""
        self._settle(job)
        job.source.pulls.forget(job.pulled)
        self.leave_lane(job)

    def leave_lane(self, job: Job) -> None:
        """Let the event that follows a settled one of its lane be handled."""
        if not job.is_in_lane:
            return
        with self._lock:
            was_in_lane, job.is_in_lane = job.is_in_lane, False
        if not was_in_lane:  # a stop was quicker
            return
        following = self.lanes.leave(job.key)
        while following is not None and self.is_stopping:
            self.give_back(following)
            following = self.lanes.leave(job.key)
        if following is not None:
            self._run(following)

    def enter_logs(self, job: Job) -> None:
        """Add the event's facts to the log records of this context."""
        facts = {**self._facts, "attempt": job.attempt}
        logs.enter(facts, job.pulled.message.headers, job.pulled.message.subject)

    # ------------------------------------------------------------------------------------------------------------------

    def _later(self, job: Job, delay: float) -> None:
        if not self._settle(job):
            return
        if self._hands_back:
            self._excuse(job)
        self.again(job, delay)

    def _bury(self, job: Job, error: str, attempts: int) -> None:
        assert self._graveyard is not None
        try:
            message = job.message or read_stored(job.pulled.message, job.source.stream, attempts, as_bytes)
            self._graveyard.bury(message, job.pulled.message, attempts, error, job.source.is_retry)
        except LightLinkError as exc:
            _log.warning("lightlink: a dead letter of %s is not stored yet: %s", self._name, exc)
            self.again(job, STORE_RETRY_SECONDS)
            return
        self.counts["dead"] += 1
        if self._settings.on_dead_letter is not None:
            if job.message is None and job.data is not None:
                message = attrs.evolve(message, data=job.data)
            Context().run(self._tell_dead, self._settings.on_dead_letter, job, message, error)
        self._finish(job, job.source.pulls.end)

    def _tell_dead(self, tell: Callable[[StoredMessage, str], object], job: Job, message: Any, error: str) -> None:
        """Call ``on_dead_letter`` before the event is settled: after a crash it is called again rather than never."""
        self.enter_logs(job)
        try:
            run_handler(tell, message, error)
        except BaseException as exc:  # it may even call sys.exit()
            _log.exception("lightlink: on_dead_letter of %s failed", self._name, exc_info=exc)

    @property
    def _hands_back(self) -> bool:
        return not self._settings.is_ordered or self.is_stopping

    def _excuse(self, job: Job) -> None:
        """Record how many of the deliveries to this process were no attempts: in an outage there may be many."""
        deliveries = job.pulled.attempt - job.pulled.first + 1
        if self._graveyard is not None and deliveries > job.tries:
            try:
                count = deliveries - job.tries
                self._graveyard.excuse(job.source.is_retry, job.pulled.message, count, self._excuse_until)
            except LightLinkError as exc:
                _log.debug("lightlink: a delivery that was no attempt counts as one: %s", exc)

    def _settle(self, job: Job) -> bool:
        """Claim the outcome of an event; False if its timeout has settled it already."""
        with self._lock:
            first, job.is_settled = not job.is_settled, True
            self._running.discard(job)
            self._resting.discard(job)
            if job.started is not None:
                self.seconds += time.monotonic() - job.started
            job.started = None
        return first

    def _finish(self, job: Job, say: Callable[[Pulled], object]) -> None:
        if job.source.is_retry and self._graveyard is not None:
            for number in filter(None, (job.pulled.message.seq, job.event_at)):
                self._graveyard.forget(number)
        if job.excused is not None and self._graveyard is not None:
            self._graveyard.forget_excuse(job.excused)
        say(job.pulled)
        self.leave_lane(job)


def _attempts_of(job: Job) -> int:
    return job.attempt or job.pulled.first + job.tries
