"""Deliver a durable consumer's events to a handler, with retries, dead letters and optional ordering.

At least once: an event is acknowledged after its handler has returned, and never before.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.deadline import Deadline, instant_after
from lightlink.concurrency.forks import run_handler
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.threads import RLock
from lightlink.concurrency.workers import WorkerPool
from lightlink.errors import BatchFailed, DecodeError, LightLinkError, Reject, StreamError
from lightlink.jetstream.pull import PullConsumer
from lightlink.middleware import Call
from lightlink.protocol.subjects import as_text
from lightlink.streams.durable import Durable
from lightlink.streams.graveyard import Excused, Graveyard
from lightlink.streams.job import Job, Settings, Source
from lightlink.streams.message import StoredMessage, decoder_of, read_stored
from lightlink.streams.outcomes import STORE_RETRY_SECONDS, Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.connection.connection import Connection
    from lightlink.jetstream.pull import Pulled
    from lightlink.middleware import Stack

_log = logging.getLogger("lightlink")

_TICK_SECONDS = 1.0
_LOOK_SECONDS = 15.0
# Events held for each worker, and for each worker of a handler that takes less than this on average.
_HELD, _HELD_QUICK, _QUICK_SECONDS = 2, 32, 0.005
# Seconds until more threads help with a burst. Where those at work take no longer than so many for each event, they
# would only wait for the interpreter's lock.
_HELP_SECONDS, _TOO_QUICK_SECONDS = 0.001, 0.00005
_TOO_OFTEN = "it was delivered {} times and never settled: its handler ended the process, or was cut off"


class Consumption:
    """A function that handles the events of a durable consumer; made by `Client.consume` and `Service.consume`.

    ``counts`` are of this process: delivered, done, retried, dead, stuck; ``seconds`` is the total time in handlers.
    ``lag`` is how many events no process has handled yet, asked of the server every 15 seconds.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        name: str,
        durables: Sequence[Durable],
        handle: Callable[[Any], object],
        handle_data: Callable[[Any], object] | None,
        decode: Callable[[bytes, str], Any],
        settings: Settings,
        middleware: Stack,
        timeout: float,
    ) -> None:
        self.stream = stream
        self.name = name
        self.settings = settings
        self.lag = 0
        self._connection = connection
        self._durables = durables
        self._handle = handle
        self._handle_data = handle_data or handle
        self._takes_data = handle_data is not None
        self._plain = decoder_of(settings.raw)
        self._decode = decode
        self._middleware = middleware
        self._ack_wait = min(durable.ack_wait for durable in durables)
        self._attempts = settings.attempts
        self._pid = os.getpid()
        self._pool = WorkerPool(f"lightlink-consume-{self.name}", settings.workers)
        self._graveyard = Graveyard(connection, stream, name, timeout) if settings.dead_letters else None
        self._outcomes = Outcomes(stream, name, settings, self._graveyard, self._put, self._put_after)
        self.counts = self._outcomes.counts
        self._sources: list[Source] = []
        self._lock = RLock()
        self._todo: deque[Job] = deque()
        self._is_help_due = False  # whether `_help` is scheduled
        self._taken = 0  # events, since that was scheduled
        self._order = RLock()  # held while an event is taken and put into its lane
        self._in_hand: Job | None = None  # the one that is being put there
        self._busy = 0  # threads that handle queued events
        self._batch: list[Job] = []
        self._unbegun: list[Job] = []  # given back at a stop, from the last one to the first
        self._missing: set[str] = set()
        self._has_left = False
        self._periodic: list[PeriodicJob] = []

    def __repr__(self) -> str:
        return f"<Consumption of {self.stream}/{self.name}: {self.counts}>"

    @property
    def seconds(self) -> float:
        """The total time in handlers."""
        return self._outcomes.seconds

    @property
    def held(self) -> int:
        """How many events this process holds, queued or being handled."""
        return sum(len(source.pulls) for source in self._sources)

    def start(self) -> None:
        """Start handling events; on an error, stop what was started. Raises StreamError."""
        try:
            self._begin()
        except BaseException:
            self.stop(0.0)
            raise

    def _begin(self) -> None:
        self._pool.start()
        self._sources += [self._source(each, is_retry=False) for each in self._durables]
        if self._graveyard is not None:
            self._sources.append(self._source(self._graveyard.prepare(), is_retry=True))
        for source in self._sources:
            source.pulls.start()
        tick = min(_TICK_SECONDS, self._ack_wait / 4)
        self._periodic += [every(tick, self._tick), every(tick, self._mend), every(_LOOK_SECONDS, self._look)]

    def _source(self, durable: Durable, *, is_retry: bool) -> Source:
        most = 2 * self.settings.batch if self.settings.batch else _HELD * self.settings.workers
        lane = durable.name if self.settings.partitions else None
        source: Source
        pulls = PullConsumer(
            self._connection,
            durable.stream,
            durable.name,
            most,
            durable.ack_wait,
            lambda burst: self._on_messages(source, burst),
            lambda: self._missing.add(durable.name),
        )
        source = Source(pulls, durable, self.stream, is_retry, lane)
        return source

    def stop(self, timeout: float = 5.0) -> None:
        """Fetch no more, NAK what has not begun, let handlers finish within ``timeout`` seconds. Idempotent."""
        if self._has_left or self._pid != os.getpid():
            return
        deadline = Deadline(timeout)
        # Half the time is for handlers, whatever the server does.
        self._outcomes.begin_stop(timeout / 2)
        for source in self._sources:
            source.pulls.stop_fetching(deadline.remaining())
        self._give_back_unbegun()
        for source in self._sources:
            source.pulls.stop(deadline.remaining())
        # Queued jobs hand themselves back; running ones are waited for.
        if not self._pool.stop(deadline.remaining()):
            _log.warning("lightlink: a handler of %s did not finish; its event is redelivered", self.name)
        for each in self._periodic:
            each.stop(0.0)
        self._has_left = True  # not before: what Ctrl-C has ended the next stop does

    def _give_back_unbegun(self) -> None:
        """NAK the events that wait here in the order that they came in, as they are delivered again in that order."""
        with self._lock:
            self._unbegun += self._batch + list(self._todo)
            self._batch.clear()
            self._todo.clear()
            if self._in_hand is not None:
                self._unbegun.append(self._in_hand)
        self._outcomes.lanes.move_waiting(self._unbegun)
        resting = self._outcomes.resting()
        self._unbegun += resting
        self._unbegun.sort(key=lambda job: job.pulled.message.number, reverse=True)
        while self._unbegun:
            self._outcomes.give_back(self._unbegun.pop())
        for job in resting:
            self._outcomes.leave_lane(job)

    def connection_closed(self) -> None:
        """Stop: the connection is closed for good."""
        self.stop(0.0)

    # On the library's threads -----------------------------------------------------------------------------------------

    def _on_messages(self, source: Source, burst: list[Pulled]) -> None:
        self.counts["delivered"] += len(burst)
        jobs = [Job(pulled, source) for pulled in burst]
        if self.settings.batch is not None:
            self._gather(jobs)
            return
        with self._lock:
            self._todo += jobs
            is_first = not self._busy
            self._busy += is_first
            is_enough = is_first and len(jobs) == 1
        if is_first:
            self._pool.put(self._work_off)
        if not is_enough:
            self._call_for_help()
        self._adapt_room(source)

    def _adapt_room(self, source: Source) -> None:
        """Hold more events if they are handled quickly, so that the next ones arrive before these are done."""
        done = sum(self.counts[each] for each in ("done", "retried", "dead"))
        quick = done > 0 and self.seconds / done < _QUICK_SECONDS
        source.pulls.hold((_HELD_QUICK if quick else _HELD) * self.settings.workers)

    def _call_for_help(self) -> None:
        """Schedule `_help` if events are queued: waking all threads at once costs more than most handlers do."""
        with self._lock:
            if self._is_help_due or not self._todo or self._busy >= self.settings.workers:
                return
            self._connection.session.notifier.post_at(instant_after(_HELP_SECONDS), self._help, time.monotonic())
            self._taken = 0
            self._is_help_due = True  # not before: if scheduling fails, later calls must try again

    def _help(self, since: float) -> None:
        """Double the threads at work while events are queued, and are not handled quickly enough by those."""
        with self._lock:
            self._is_help_due = False
            more = min(len(self._todo), self.settings.workers - self._busy, max(self._busy, 1))
            if (time.monotonic() - since) * self._busy < self._taken * _TOO_QUICK_SECONDS:
                more = 0
            self._busy += more
        for _ in range(more):
            self._pool.put(self._work_off)
        self._call_for_help()

    def _work_off(self) -> None:
        """Handle queued events until none is left: waking a thread per event costs more than most handlers."""
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> Job | None:
        """Return the next event that may be handled now; None when there is none."""
        if not self.settings.is_ordered:
            return self._take()
        while True:
            # Without this lock two threads could take events of one key and put them into its lane in reverse.
            with self._order:
                job = self._in_hand = self._take()
                if job is None:
                    return None
                error = self._find_key(job)
                job.is_in_lane = error is None
                is_first = error is None and self._outcomes.lanes.enter(job.key, job)
                self._in_hand = None
            if error is not None:
                self._outcomes.raised(job, error)
            elif is_first:
                return job

    def _take(self) -> Job | None:
        with self._lock:
            if not self._todo:
                self._busy -= 1
                return None
            self._taken += 1
            return self._todo.popleft()

    def _tick(self) -> None:
        for source in self._sources:
            source.pulls.tick()
        for job in self._outcomes.late():
            self._overrun(job)

    def _look(self) -> None:
        """Read the consumer's lag, and whether another program has changed it."""
        try:
            found = [source.durable.look() for source in self._sources if not source.is_retry]
        except LightLinkError as exc:
            _log.debug("lightlink: the lag of consumer %s cannot be read: %s", self.name, exc)
            return
        self.lag = sum(each.num_pending + each.num_ack_pending for each in found if each is not None)

    def _mend(self) -> None:
        """Recreate the consumers that the server knows no more; not in `_tick`, as this may wait for answers."""
        for source in self._sources:
            name = source.durable.name
            if name not in self._missing:
                continue
            self._missing.discard(name)
            try:
                source.durable.make_again()
            except LightLinkError as exc:
                _log.warning("lightlink: nothing is heard from consumer %s, and it cannot be recreated: %s", name, exc)

    def _overrun(self, job: Job) -> None:
        """Time out an event whose handler does not return."""
        if job.is_overdue:
            return
        job.is_overdue = True
        _log.warning("lightlink: the handler of %s takes longer than %g s", self.name, self.settings.timeout)
        # In ordered mode the events behind it wait until it returns, so that two never run at once.
        self.counts["stuck"] += 1
        if not self.settings.is_ordered:
            # Before `cancelled` is set, so that a handler that returns because of it does not count as done in time.
            self._outcomes.failed(job, self._overdue_error)
        if job.message is not None:
            job.message.cancelled.set()

    @property
    def _overdue_error(self) -> str:
        return f"its handler took longer than {self.settings.timeout:g} s"

    # In batches -------------------------------------------------------------------------------------------------------

    def _gather(self, jobs: list[Job]) -> None:
        assert self.settings.batch is not None
        with self._lock:
            was_empty = not self._batch
            self._batch += jobs
            full = [self._take_batch() for _ in range(len(self._batch) // self.settings.batch)]
            is_waiting = was_empty and bool(self._batch)
        for each in full:
            self._pool.put(self._run_batch, each)
        if is_waiting:
            due = instant_after(self.settings.within)
            self._connection.session.notifier.post_at(due, self._pool.put, self._flush)

    def _take_batch(self) -> list[Job]:
        taken = self._batch[: self.settings.batch]
        del self._batch[: self.settings.batch]
        return taken

    def _flush(self) -> None:
        with self._lock:
            jobs = self._take_batch()
        if jobs:
            self._run_batch(jobs)

    def _run_batch(self, jobs: list[Job]) -> None:
        self._note_unexcused(jobs)
        ready = [job for job in jobs if self._safely(job, self._prepare)]
        if not ready:
            return
        messages = [job.message for job in ready]
        errors: dict[int, BaseException] = {}
        try:
            self._call(ready[0], messages)
        except BatchFailed as exc:
            errors = _errors_of(exc, len(ready))
        except BaseException as exc:
            errors = dict.fromkeys(range(len(ready)), exc)
        for number, job in enumerate(ready):
            error = errors.get(number)
            if error is None:
                self._safely(job, self._outcomes.done)
            else:
                self._safely(job, self._outcomes.raised, error)

    # One by one -------------------------------------------------------------------------------------------------------

    def _find_key(self, job: Job) -> Exception | None:
        """Set the key of an event; return the error if there is none."""
        key = self.settings.key
        if key is None:
            job.key = job.source.lane
            return None
        try:
            self._complete(job)
            # Decoded as plain data, whatever type the handler takes.
            job.key = key(read_stored(job.pulled.message, job.source.stream, 1, self._plain))
            hash(job.key)
        except (DecodeError, StreamError, Reject) as exc:
            return exc
        except BaseException as exc:  # a key function may even call sys.exit()
            return Reject(f"it has no valid key: {exc!r}")
        return None

    def _put(self, job: Job) -> None:
        self._pool.put(self._run, job)

    def _put_after(self, delay: float, job: Job) -> None:
        self._connection.session.notifier.post_at(instant_after(delay), self._put, job)

    def _run(self, job: Job) -> None:
        self._safely(job, self._attend)

    def _safely(self, job: Job, step: Callable[..., Any], *args: Any) -> Any:
        """Take a step with an event; if that fails, release it, so that neither event nor thread is lost."""
        try:
            return step(job, *args)
        except BaseException:  # a bug, or no memory
            _log.exception("lightlink: %s failed on an event, which is redelivered", self.name)
            self._outcomes.release(job)

    def _attend(self, job: Job) -> None:
        if not self._prepare(job):
            return
        try:
            self._call(job, job.data if job.message is None else job.message)
        except BaseException as exc:  # a handler may even call sys.exit()
            self._outcomes.raised(job, exc)
        else:
            if job.is_overdue:
                self._outcomes.failed(job, self._overdue_error)
            else:
                self._outcomes.done(job)

    def _prepare(self, job: Job) -> bool:
        """Decode an event for its handler; tell whether it is to be handled."""
        if self._outcomes.is_stopping:
            self._outcomes.give_back(job)
            self._outcomes.leave_lane(job)
            return False
        try:
            self._complete(job)
            attempt = self._attempt(job)
            if self._attempts is not None and attempt > self._attempts:
                self._outcomes.bury(job, _TOO_OFTEN.format(attempt - 1), attempt - 1)
                return False
            job.attempt = attempt
            if self._takes_data and not self._middleware.is_used:
                delivery = job.pulled.message
                job.data = self._decode(delivery.data, as_text(delivery.subject))
            else:
                job.message = self._read(job, attempt)
        except StreamError as exc:
            _log.warning("lightlink: what is known of an event for %s cannot be read: %s", self.name, exc)
            self._outcomes.again(job, STORE_RETRY_SECONDS)
            return False
        except Exception as exc:
            self._outcomes.raised(job, exc)
            return False
        self._outcomes.begin(job)
        return True

    def _complete(self, job: Job) -> None:
        """Fetch the event of a redelivered dead letter in which it had no room."""
        if job.source.is_retry and not job.event_at and self._graveyard is not None:
            job.pulled.message, job.event_at = self._graveyard.whole(job.pulled.message)

    def _attempt(self, job: Job) -> int:
        """Return the number of this attempt; counted before the handler runs, so that a crash counts too."""
        attempt = job.pulled.first + job.tries
        if job.pulled.first == 1 or self._graveyard is None or self._attempts is None:
            return attempt
        if job.excused is None:
            try:
                job.excused = self._graveyard.excused(job.source.is_retry, job.pulled.message)
            except LightLinkError:
                if attempt > self._attempts:
                    raise
                return attempt
        return max(attempt - job.excused.count, 1)

    def _note_unexcused(self, jobs: list[Job]) -> None:
        """Ask once for a whole batch whether any event of the consumer is excused: mostly none is."""
        again = [job for job in jobs if job.pulled.first > 1]
        if self._graveyard is None or len(again) < 2:
            return
        try:
            has_any = self._graveyard.has_excuses()
        except LightLinkError:
            return  # each event asks for itself
        for job in [] if has_any else again:
            job.excused = Excused()

    def _read(self, job: Job, attempt: int = 1) -> StoredMessage:
        return read_stored(job.pulled.message, job.source.stream, attempt, self._decode)

    def _call(self, job: Job, subject: Any) -> None:
        self._outcomes.enter_logs(job)
        message = job.message
        if message is None or not self._middleware.is_used:
            run_handler(self._handle_data if message is None else self._handle, subject)
            return
        if isinstance(subject, list):
            batch = Call(kind="consume", name=self.name, args=subject)
            run_handler(self._middleware.run, batch, lambda given: self._handle(given.args))
            return
        call = Call(kind="consume", name=message.subject, args=message.data, headers=message.headers, message=message)

        def last(given: Call) -> object:
            return self._handle(message if given.args is message.data else attrs.evolve(message, data=given.args))

        run_handler(self._middleware.run, call, last)


def _errors_of(failed: BatchFailed, size: int) -> dict[int, BaseException]:
    """Return the errors in a batch by place; one for all if what it names are not places, as then nobody knows."""
    errors = failed.errors
    if isinstance(errors, Mapping) and errors and all(place in range(size) for place in errors):
        return dict(errors)
    named = list(errors) if isinstance(errors, Mapping) else errors
    wrong = ValueError(f"BatchFailed must name which of the {size} events failed, from 0 on; it names {named!r}")
    return dict.fromkeys(range(size), wrong)
