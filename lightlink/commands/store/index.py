"""Which command has which status, type and batch: kept in memory by a reader that follows, so that a rare one is found.

It only says where to look. Whatever it names is read from the store, and counts as it stands there; what has been
acknowledged before a question is in it before the question is answered. It begins with the excerpt that is kept of it
(`excerpt`), which the manager that sweeps renews; of what was completed before that only rare types are in it then.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from lightlink.commands.store import excerpt, schema
from lightlink.commands.store.access import FAILURES
from lightlink.commands.store.catalogue import Catalogue
from lightlink.concurrency.deadline import Deadline, instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.concurrency.threads import Condition, Lock, start_thread, wait_until
from lightlink.errors import LightLinkError, PermissionDenied
from lightlink.jetstream.read import EVERYTHING, LAST_OF_EACH, OrderedReader
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.commands.store.catalogue import Entry
    from lightlink.commands.store.filter import Filter
    from lightlink.commands.store.store import CommandStore
    from lightlink.jetstream.answers import StreamInfo

_log = logging.getLogger("lightlink")

# It is not kept where reading all requests would take too long: then the stream is looked through.
MOST_BYTES = 256 * 1024 * 1024
_WINDOW = 2048
_NO_LIMIT = 1 << 40
# How long it follows though nobody asks.
_IDLE_SECONDS = 300.0
_LOOK_SECONDS = 1.0
# How long it may take to learn all that there is.
_TIMEOUT = 30.0
# After how many requests the excerpt is renewed: whoever begins with it reads so many.
_RENEWED_AFTER = 2_000
# How many requests are read for an excerpt though nobody has asked.
_MOST_UNASKED = 20_000


class CommandIndex:
    """The index of one manager; begun by the first question that needs it, and let go when nobody asks any more."""

    def __init__(self, store: CommandStore) -> None:
        self._store = store
        self._beginning = Lock()
        self._changed = Condition()
        self._known = Catalogue()
        self._readers: list[OrderedReader] = []
        self._queue: MessageQueue | None = None
        self._asked_at = 0.0
        # How many requests had been read when an excerpt was kept last, as far as is known.
        self._renewed = 0
        self._may_keep = True

    @property
    def is_following(self) -> bool:
        """Whether it has been begun, so that a question costs little."""
        return self._queue is not None

    def resume(self) -> None:
        """Begin with the excerpt, if one is kept, so that little has to be read."""
        self._asked_at = time.monotonic()
        try:
            if not self.is_following and (ends := self._ends()) is not None:
                self._begin(ends, or_all=False)
        except (*FAILURES, LightLinkError) as exc:
            _log.debug("lightlink: the index of commands is not to be had: %s", exc)

    def find(self, wanted: Filter, before: int, *, or_all: bool) -> Iterator[tuple[int, str, str]] | None:
        """Return the commands that may pass a filter, newest first, as (sequence, client id, command id).

        None says that it cannot tell: the stream has to be looked through. With ``or_all`` everything is read for it
        where less does not tell.
        """
        if not (or_all or self._known.can_find(wanted)):
            return None
        known = self._current(or_all, wanted)
        if known is None or not known.can_find(wanted):
            return None
        with self._changed:
            candidates = known.candidates(wanted)
        return self._matching(known, candidates, wanted, before)

    def span(self, batch_id: str) -> tuple[int, int] | None:
        """Return the sequences of the first and the last request of a batch, None where it cannot tell."""
        known = self._current(or_all=False)
        if known is None:
            return None
        with self._changed:
            return known.batches.get(batch_id, (1, 0) if known.has_all_batches else None)

    def keep(self) -> None:
        """Renew the excerpt when many commands have come since; for one manager at a time.

        Raises StoreUnavailable.
        """
        ends = self._ends() if self._may_keep else None
        if ends is None or not self._is_stale(ends):
            return
        state = ends[subjects.COMMANDS_STREAM].state
        began, was_following = time.monotonic(), self.is_following
        self._asked_at = max(self._asked_at, began)
        try:
            self._begin(ends, or_all=state.last_seq - state.first_seq < _MOST_UNASKED)
            known = self._known
            is_near = state.last_seq - known.reached[subjects.COMMANDS_STREAM] < _MOST_UNASKED
            if self.is_following and self._is_stale(ends) and is_near and self._wait(ends, known, Deadline(_TIMEOUT)):
                self._save(ends, known)
        finally:
            if not was_following and self._asked_at <= began:
                self.stop()

    def stop(self) -> None:
        """Follow no more, and forget; idempotent."""
        with self._beginning:
            self._let_go()

    # Asking ---------------------------------------------------------------------------------------------------------

    def _matching(
        self, known: Catalogue, entries: list[tuple[str, Entry]], wanted: Filter, before: int
    ) -> Iterator[tuple[int, str, str]]:
        at = self._store.clock.timestamp()
        for command_id, entry in entries:
            if entry.seq < before and known.may_pass(command_id, entry, wanted, at):
                yield entry.seq, entry.client_id, command_id

    def _current(self, or_all: bool, wanted: Filter | None = None) -> Catalogue | None:
        """Return what is known when all is in it that was acknowledged until now.

        None when that is too much, or takes too long.
        """
        deadline = Deadline(_TIMEOUT)
        self._asked_at = time.monotonic()
        try:
            ends = self._ends()
            if ends is None:
                return None
            self._begin(ends, or_all)
            if or_all and wanted is not None and not self._known.can_find(wanted):
                self.stop()
                self._begin(ends, or_all, resume=False)
            known = self._known
            if not self.is_following or not self._wait(ends, known, deadline):
                return None
            if self._may_keep and self._is_stale(ends):
                self._save(ends, known)
        except (*FAILURES, LightLinkError) as exc:
            _log.debug("lightlink: the index of commands is not to be had: %s", exc)
            return None
        return known

    def _ends(self) -> dict[str, StreamInfo] | None:
        """Return what the server says of both streams, None where it is too much for an index."""
        ends = {}
        for stream in (
            subjects.STATUS_STREAM,
            subjects.COMMANDS_STREAM,
        ):  # so the request of each status is among the requests
            info = self._store.stream_info(stream, "listing commands")
            if info is None:
                return None
            ends[stream] = info
        reached = self._known.reached
        if any(reached[stream] > info.state.last_seq for stream, info in ends.items()):
            self.stop()  # the stream was lost, and made anew
        if ends[subjects.COMMANDS_STREAM].state.bytes > MOST_BYTES:
            self.stop()
            return None
        return ends

    def _wait(self, ends: dict[str, StreamInfo], known: Catalogue, deadline: Deadline) -> bool:
        def has_come() -> bool:
            return all(known.reached[stream] >= info.state.last_seq for stream, info in ends.items())

        with self._changed:
            wait_until(self._changed, lambda: self._known is not known or has_come(), deadline.remaining())
            known.forget_before(ends[subjects.COMMANDS_STREAM].state.first_seq)
            return has_come()

    # Keeping --------------------------------------------------------------------------------------------------------

    def _is_stale(self, ends: dict[str, StreamInfo]) -> bool:
        return ends[subjects.COMMANDS_STREAM].state.last_seq >= self._renewed + _RENEWED_AFTER

    def _save(self, ends: dict[str, StreamInfo], known: Catalogue) -> None:
        with self._changed:
            kept = known.excerpt(_made(ends), ends[subjects.STATUS_STREAM].state.last_seq)
        self._renewed = kept.requests
        try:
            excerpt.save(self._store, kept)
        except PermissionDenied as exc:
            self._may_keep = False  # an identity from before there was an excerpt
            _log.debug("lightlink: the index of commands is not kept: %s", exc)
        except (*FAILURES, LightLinkError) as exc:
            _log.debug("lightlink: the index of commands is not kept: %s", exc)

    def _load(self, ends: dict[str, StreamInfo]) -> Catalogue | None:
        kept = excerpt.load(self._store)
        if kept is None or kept.made != _made(ends):
            return None
        if (
            kept.requests > ends[subjects.COMMANDS_STREAM].state.last_seq
            or kept.statuses > ends[subjects.STATUS_STREAM].state.last_seq
        ):
            return None
        self._renewed = kept.requests
        return Catalogue(kept)

    # Following ------------------------------------------------------------------------------------------------------

    def _begin(self, ends: dict[str, StreamInfo], or_all: bool, *, resume: bool = True) -> None:
        """Begin to follow, where the excerpt ends; without one only if all may be read."""
        with self._beginning:
            if self._queue is not None:
                return
            known = self._load(ends) if resume else None
            if known is None and not or_all:
                return
            try:
                self._follow_from(known or Catalogue())
            except BaseException:
                self._let_go()
                raise

    def _follow_from(self, known: Catalogue) -> None:
        queue = MessageQueue(2 * _WINDOW + 2, _NO_LIMIT)
        readers = {}
        for stream, reached in known.reached.items():
            readers[stream] = OrderedReader(
                self._store.connection,
                stream,
                [schema.EVERYTHING],
                lambda delivery, stream=stream: queue.put((stream, delivery), 0),  # type: ignore[misc]
                policy=LAST_OF_EACH if stream == subjects.STATUS_STREAM and not reached else EVERYTHING,
                first=reached + 1 if reached else 0,
                window=_WINDOW,
            )
        with self._changed:
            self._queue, self._known = queue, known
        start_thread(self._follow, "lightlink-command-index", queue, known, readers)
        for reader in readers.values():
            reader.start(self._store.timeout)
            self._readers.append(reader)

    def _follow(self, queue: MessageQueue, known: Catalogue, readers: dict[str, OrderedReader]) -> None:
        while True:
            try:
                stream, delivery = queue.get(instant_after(_LOOK_SECONDS))
            except TimeoutError:
                self._rest(queue)
                continue
            except Closed:
                return
            readers[stream].release(delivery)
            with self._changed:
                if self._queue is not queue:
                    return
                known.note(stream, delivery)
                is_empty = not len(queue)
                if is_empty:
                    self._changed.notify_all()
            if is_empty:
                self._rest(queue)

    def _rest(self, queue: MessageQueue) -> None:
        """Follow no more if nobody has asked for a while."""
        if time.monotonic() - self._asked_at > _IDLE_SECONDS and self._queue is queue:
            self.stop()

    def _let_go(self) -> None:
        with self._changed:
            readers, self._readers = self._readers, []
            queue, self._queue = self._queue, None
            self._known = Catalogue()
            self._changed.notify_all()
        for reader in readers:
            reader.stop()
        if queue is not None:
            queue.close()


def _made(ends: dict[str, StreamInfo]) -> list[str]:
    return [ends[stream].created for stream in (subjects.COMMANDS_STREAM, subjects.STATUS_STREAM)]
