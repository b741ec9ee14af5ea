"""From the outbox to the socket, on the loop's thread."""

from __future__ import annotations

import asyncio
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.threads import Promise
from lightlink.connection.nats_client import read_frame
from lightlink.connection.outbox import Outbox
from lightlink.connection.replies import TurnWaiter
from lightlink.errors import ClosedError, PayloadTooLarge
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lightlink.concurrency.loop import LoopThread
    from lightlink.connection.nats_client import WireClient
    from lightlink.connection.replies import ReplyMap, Waiter

# How much is written to the socket at once, and how often in a row before the loop does something else.
_BATCH_BYTES = 1024 * 1024
_BATCHES_IN_A_ROW = 8
# Answers, acknowledgements and what agents tell: whoever waits for them asks again, so no flush need tell of them.
# Most messages are told from them by one byte: that of a subject behind PUB, or the space behind HPUB.
_AT, _FIRST = 4, frozenset(b"_$l ")
_second_word = itemgetter(_AT)
_OURS = tuple(verb + start for verb in (b"PUB ", b"HPUB ") for start in (b"_INBOX", b"_R_.", b"$JS.", b"ll."))
# How long whoever has the turn may be held up, say by a signal handler, before another is woken, and all is written.
_HELD_UP_SECONDS = 0.05


def _are_events(batch: list[Any]) -> bool:
    """Tell whether a batch holds events only, as far as one byte tells; no step in Python for each of them."""
    try:
        return _FIRST.isdisjoint(map(_second_word, batch))
    except TypeError:  # a request, or a `Flush`
        return False


class Flush:
    """A question to the server, on its way through the outbox, whether it has all that went before.

    ``deadline`` is an instant of `time.monotonic`.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._error: Exception | None = None
        self._answered = Promise()

    def __len__(self) -> int:
        """Return 0: it takes no room in the outbox."""
        return 0

    def wait(self) -> None:
        """Return when the server has confirmed; raises TimeoutError at the deadline, and the error it ended with."""
        if not self._answered.wait(self.deadline - time.monotonic()):
            raise TimeoutError
        if self._error is not None:
            raise self._error

    def confirm(self) -> None:
        """Let the caller go on, if it still waits; called once, as is `fail`, and one of the two."""
        self._answered.keep()

    def fail(self, error: Exception) -> None:
        """Let the caller go on with an error, if it still waits."""
        self._error = error
        self._answered.keep()


class Pump:
    """Owns the outbox and writes what is in it whenever the connection takes it.

    A caller that waits for the reply to its request writes that itself when nothing is before it.

    The outbox carries bytes, objects that make their bytes when asked for their ``frame(inbox)``, and `Flush`. While
    callers are woken whose ``replies`` came in one read, writing waits: they may have more to send, and one write and
    one wake-up of the loop are cheaper than many. What the server takes no more as it leaves goes to ``report``.
    """

    def __init__(
        self,
        loop: LoopThread,
        replies: ReplyMap,
        max_messages: int,
        max_bytes: int,
        report: Callable[[Exception], object] = lambda _: None,
    ) -> None:
        self.outbox = Outbox(max_messages, max_bytes, self._wake, lambda: loop.is_own_thread)
        self._loop = loop
        self._replies = replies
        self._report = report
        self._late = False  # something waits in the outbox until all callers are woken
        self._will_look = False
        replies.on_all_woken = self._catch_up
        self._nc: WireClient | None = None
        self._held = False
        self._congested = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether what is put into the outbox leaves at once."""
        return self._nc is not None

    def start(self, nc: WireClient) -> None:
        """Write from now on; on the loop's thread."""
        self._nc = nc
        self.release()

    def stop(self) -> None:
        """Let what is put into the outbox wait there: there is no connection."""
        self.outbox.set_shortcut(None)
        self._nc = None

    def hold(self) -> None:
        """Let what is put into the outbox wait there until `release`, or until the connection has been made again."""
        self.outbox.set_shortcut(None)
        self._held = True

    def release(self) -> None:
        """Write again."""
        self._held = False
        self.outbox.set_shortcut(self._write_here)
        self._pump()

    def end_read(self) -> None:
        """Have callers woken whose replies were read; on the loop's thread, which is awake and so writes too."""
        self._replies.end_read()
        if self._late:
            self._loop.loop.call_soon(self._pump)
        if self._replies.waking and not self._will_look:
            self._will_look = True
            self._loop.loop.call_later(_HELD_UP_SECONDS, self._look)

    def _look(self) -> None:
        self._will_look = False
        self.end_read()

    def _write_here(self, item: Any) -> bool:
        """Write a request in its caller's thread, with the outbox's lock, if the loop has nothing to write before it.

        Only while nobody else waits for a reply, or is about to get one: what many send is cheaper in one write.
        """
        nc = self._nc
        if item.__class__ is not TurnWaiter or nc is None or nc.may_exceed:
            return False
        if len(self._replies) > 1 or self._replies.waking:
            return False
        frame = item.frame(self._replies.prefix)
        if frame and (len(frame) > nc.max_payload or not nc.write_here(frame)):
            item.sent = False
            return False  # the loop writes it, or looks whether it is too large
        return True

    def _wake(self) -> None:
        if self._replies.waking:
            self._late = True
            # Looked at again, as whoever woke the last of them may have seen nothing late.
            if self._replies.waking:
                return
        self._loop.call_soon(self._pump)

    def _catch_up(self) -> None:
        if self._late:
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._late = False
        for _ in range(_BATCHES_IN_A_ROW):
            if self._nc is None or self._held or self._congested or not self._nc.is_writable:
                return  # reconnecting, or the socket catching up, pumps again
            batch = self.outbox.take(_BATCH_BYTES)
            if not batch:
                return
            self._write(self._nc, batch)
        self._wake()

    def _write(self, nc: WireClient, batch: list[Any]) -> None:
        if nc.may_exceed:
            batch = self._fitting(nc, batch)
        if _are_events(batch):
            frames, published = batch, len(batch)
        else:
            frames, published = self._framed(nc, batch)
        nc.note_published(published)
        if frames:
            nc.write(frames)
        if nc.is_congested:
            self._congested = True
            self._spawn(self._wait_decongested(nc))

    def _framed(self, nc: WireClient, batch: list[Any]) -> tuple[list[bytes], int]:
        """Return the frames of a batch, behind its last `Flush`, and how many of them are events."""
        limit = nc.max_payload
        frames: list[bytes] = []
        published = 0
        for item in batch:
            if item.__class__ is bytes:
                frames.append(item)
                if item[_AT] not in _FIRST or not item.startswith(_OURS):
                    published += 1
            elif item.__class__ is Flush:
                nc.note_published(published)
                published = 0
                if frames:
                    nc.write(frames)
                    frames = []
                self._spawn(self._confirm(nc, item))
            else:
                frame = item.frame(self._replies.prefix)
                if frame and (len(frame) <= limit or self._is_let_through(item, frame, limit)):
                    frames.append(frame)
        return frames, published

    def _fitting(self, nc: WireClient, batch: list[Any]) -> list[Any]:
        """Drop events that the server takes no more, alone: it would hang up on them, and on all behind them."""
        fitting = []
        for item in batch:
            if item.__class__ is bytes:
                subject, size = read_frame(item)
                if size > nc.max_payload:
                    self._report(PayloadTooLarge(as_text(subject), size, nc.max_payload))
                    continue
            fitting.append(item)
        return fitting

    def _is_let_through(self, waiter: Waiter, frame: bytes, limit: int) -> bool:
        """Tell whether a request of many bytes, headers included, is one that the server takes; else end it."""
        subject, size = read_frame(frame)
        if size > limit:
            self._replies.fail_one(waiter, PayloadTooLarge(as_text(subject), size, limit))
        return size <= limit

    async def _wait_decongested(self, nc: WireClient) -> None:
        try:
            await nc.wait_decongested()
        except OSError:
            pass  # the connection is lost; reconnecting pumps again
        finally:
            self._congested = False
        self._pump()

    async def _confirm(self, nc: WireClient, flush: Flush) -> None:
        remaining = flush.deadline - time.monotonic()
        if remaining <= 0:
            return
        try:
            await nc.flush(remaining)
        except BaseException as exc:
            flush.fail(exc if isinstance(exc, Exception) else ClosedError("the client", "was closed meanwhile"))
            if not isinstance(exc, Exception):
                raise
        else:
            flush.confirm()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
