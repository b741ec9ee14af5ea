"""One reply inbox, many waiting callers.

A caller waits on a plain lock in a dictionary keyed by its reply token; the loop puts the reply beside it and releases
the lock. A token is a random UUID, so nobody can answer a call that was not sent to them.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.threads import LOOK_SECONDS
from lightlink.connection.nats_client import publish_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LEAST_SECONDS = 0.001
# What stands in a frame besides the payload, in bytes; headers are not known before it leaves.
_FRAME_OVERHEAD = 64
# When a caller that waits looks for the first time whether its turn was forgotten (or, with the interpreter, whether a
# signal has come), and how much later each next time.
_FIRST_LOOK_SECONDS = 0.05
_LATER_LOOKS = 4


class Waiter:
    """A request and the caller waiting for its reply.

    ``deadline`` is an instant of `time.monotonic`. After the wait exactly one of ``data`` and ``error`` is set, and
    ``answered``; ``sent`` tells whether the request has left for the server.
    """

    # Whether whoever waits for it waits for nothing else, and can be trusted to `ReplyMap.wait`.
    in_turn = False

    __slots__ = (
        "__weakref__",
        "_lock",
        "abandoned",
        "answered",
        "data",
        "deadline",
        "error",
        "headers",
        "make_headers",
        "payload",
        "sent",
        "subject",
        "token",
    )

    def __init__(
        self,
        token: bytes,
        subject: bytes,
        payload: bytes,
        deadline: float,
        make_headers: Callable[[float], bytes] | None,
    ) -> None:
        self.token = token
        self.subject = subject
        self.payload = payload
        self.deadline = deadline
        self.make_headers = make_headers
        self.data = b""
        self.headers: bytes | None = None
        self.error: Exception | None = None
        self.sent = False
        self.answered = False
        self.abandoned = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def __len__(self) -> int:
        """Return about how many bytes it takes in the outbox."""
        return len(self.payload) + _FRAME_OVERHEAD

    def frame(self, inbox: bytes) -> bytes:
        """Return the protocol bytes of the request as it leaves; none when nobody waits for it any more."""
        remaining = self.deadline - time.monotonic()
        # First this and then the look: a caller that gives up meanwhile sets `abandoned` first and then reads `sent`,
        # so one of the two sees the other. Never does a request leave whose caller was told that it did not.
        self.sent = True
        if self.abandoned or remaining <= 0:
            self.sent = False
            return b""
        headers = self.make_headers(remaining) if self.make_headers is not None else None
        return publish_frame(self.subject, inbox + self.token, self.payload, headers)

    def wait(self, seconds: float = threading.TIMEOUT_MAX) -> bool:
        """Wait until the reply is there, the deadline has passed or ``seconds`` are over; tell whether it is there."""
        return self._lock.acquire(timeout=max(_LEAST_SECONDS, min(self.deadline - time.monotonic(), seconds)))

    def settle(self) -> None:
        """Wake the caller; called once, by the thread that took the waiter out of the map."""
        self._lock.release()


class TurnWaiter(Waiter):
    """A request whose caller is woken when its turn comes; wait for it with `ReplyMap.wait`."""

    in_turn = True

    __slots__ = ()


class CallbackWaiter(Waiter):
    """A request whose reply goes to a function instead of a blocked caller.

    ``post`` is given functions that it has called elsewhere, those of one read together.
    """

    __slots__ = ("_on_settled", "post")

    def __init__(
        self,
        token: bytes,
        subject: bytes,
        payload: bytes,
        deadline: float,
        make_headers: Callable[[float], bytes] | None,
        on_settled: Callable[[Waiter], object],
        post: Callable[[list[Callable[[], object]]], object],
    ) -> None:
        super().__init__(token, subject, payload, deadline, make_headers)
        self._on_settled: Callable[[Waiter], object] | None = on_settled
        self.post = post

    def settle(self) -> None:
        """Have the waiter handed to its function."""
        self.post([self.settle_here])

    def settle_here(self) -> None:
        """Hand the waiter to its function."""
        # Let go of it at once: it holds what holds this waiter, and payloads would wait for the garbage collector.
        on_settled, self._on_settled = self._on_settled, None
        if on_settled is not None:
            on_settled(self)


class Group:
    """Requests whose replies go to one function, those of one read together.

    ``post`` is given functions that it has called elsewhere.
    """

    __slots__ = ("__weakref__", "_on_settled", "_post")

    def __init__(
        self,
        on_settled: Callable[[Sequence[GroupWaiter]], object],
        post: Callable[[list[Callable[[], object]]], object],
    ) -> None:
        self._on_settled = on_settled
        self._post = post

    def settle(self, waiters: Sequence[GroupWaiter]) -> None:
        """Have waiters handed to the function."""
        self._post([partial(self._on_settled, waiters)])


class GroupWaiter(Waiter):
    """A request of a group; ``about`` is what its sender knows it by."""

    __slots__ = ("about", "group")

    def __init__(
        self,
        token: bytes,
        subject: bytes,
        payload: bytes,
        deadline: float,
        make_headers: Callable[[float], bytes] | None,
        group: Group,
        about: Any,
    ) -> None:
        super().__init__(token, subject, payload, deadline, make_headers)
        self.group = group
        self.about = about

    def settle(self) -> None:
        """Have the waiter handed to its group's function."""
        self.group.settle([self])


class ReplyMap:
    """The requests that wait for a reply, by token. ``prefix`` is the inbox subject up to the token.

    Of the callers whose replies came in one read, the loop wakes one and each wakes another as it goes on: woken
    all at once, they would only wait again, for the interpreter's lock.
    """

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.strays = 0
        self.on_all_woken: Callable[[], object] = lambda: None
        self._skip = len(prefix)
        self._waiters: dict[bytes, Waiter] = {}
        self._ready: deque[Waiter] = deque()  # their reply is there, their turn is to come
        self._called: list[CallbackWaiter] = []  # the same, with a function to call
        self._answered: dict[Group, list[GroupWaiter]] = {}

    def add(self, waiter: Waiter) -> None:
        """Expect a reply for a waiter."""
        self._waiters[waiter.token] = waiter

    def add_all(self, waiters: Sequence[Waiter]) -> None:
        """Expect a reply for each of some waiters."""
        self._waiters.update([(waiter.token, waiter) for waiter in waiters])

    def withdraw(self, waiter: Waiter) -> bool:
        """Stop expecting; False says that the reply has been taken out already and is about to settle."""
        waiter.abandoned = True
        return self._waiters.pop(waiter.token, None) is not None

    def deliver(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Give a reply to its caller; one that nobody waits for (late, doubled or forged) is counted and dropped."""
        waiter = self._waiters.pop(subject[self._skip :], None)
        if waiter is None:
            self.strays += 1
            return
        waiter.data = data
        waiter.headers = headers
        waiter.answered = True
        if waiter.in_turn:
            self._ready.append(waiter)
        elif isinstance(waiter, CallbackWaiter):
            self._called.append(waiter)
        elif isinstance(waiter, GroupWaiter):
            self._answered.setdefault(waiter.group, []).append(waiter)
        else:
            waiter.settle()

    def end_read(self) -> None:
        """Let one more go on: what was read is delivered. On the loop's thread."""
        if self._called:
            called, self._called = self._called, []
            by_post: dict[Any, list[Callable[[], object]]] = {}
            for waiter in called:
                by_post.setdefault(waiter.post, []).append(waiter.settle_here)
            for post, functions in by_post.items():
                post(functions)
        if self._answered:
            answered, self._answered = self._answered, {}
            for group, together in answered.items():
                group.settle(together)
        if self._ready:
            self._wake_next()

    def wait(self, waiter: Waiter) -> bool:
        """Wait for a reply; False at the deadline, and then it is not expected any more."""
        try:
            pause = _FIRST_LOOK_SECONDS
            while not waiter.wait(pause):
                if waiter.deadline <= time.monotonic() and self.withdraw(waiter):
                    return False
                if waiter.answered:
                    # Who had the turn before is held up, say by a signal handler.
                    waiter.abandoned = True
                    break
                pause = min(pause * _LATER_LOOKS, LOOK_SECONDS)
            return True
        except BaseException:
            self.withdraw(waiter)
            raise
        finally:
            if self._ready:
                self._wake_next()

    @property
    def waking(self) -> bool:
        """Whether callers whose reply is there are still to be woken; after the last ``on_all_woken`` is called."""
        return bool(self._ready)

    def _wake_next(self) -> None:
        try:
            while True:
                waiter = self._ready.popleft()
                waiter.settle()
                if not waiter.abandoned:  # nobody would give its turn to the next
                    break
        except IndexError:
            pass
        finally:
            if not self._ready:
                self.on_all_woken()

    def unanswered(self, group: Group) -> list[GroupWaiter]:
        """Return the requests of a group that wait for a reply."""
        waiting = list(self._waiters.values())
        return [waiter for waiter in waiting if isinstance(waiter, GroupWaiter) and waiter.group is group]

    @property
    def outstanding(self) -> int:
        """How many of the requests have left and wait for a reply."""
        return sum(waiter.sent for waiter in list(self._waiters.values()))

    def fail(self, error: Exception, subject: bytes | None = None) -> int:
        """End every wait, or every one for a subject, with an error; return how many."""
        failed = 0
        for token in list(self._waiters):  # at once, as other threads go on adding
            waiter = self._waiters.get(token)
            if waiter is None or (subject is not None and waiter.subject != subject):
                continue
            if self._waiters.pop(token, None) is not None:
                waiter.error = copy.copy(error)  # each caller's traceback is its own
                waiter.answered = True
                waiter.settle()
                failed += 1
        return failed

    def fail_one(self, waiter: Waiter, error: Exception) -> None:
        """End one wait with an error, unless it has ended."""
        if self._waiters.pop(waiter.token, None) is not None:
            waiter.error = error
            waiter.answered = True
            waiter.settle()

    def __len__(self) -> int:
        return len(self._waiters)
