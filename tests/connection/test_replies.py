from __future__ import annotations

import concurrent.futures
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from lightlink.connection.replies import CallbackWaiter, Group, GroupWaiter, ReplyMap, TurnWaiter, Waiter
from lightlink.errors import ClosedError, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable


def make_waiter(token: bytes = b"token", timeout: float = 30.0, subject: bytes = b"subject") -> Waiter:
    return Waiter(token, subject, b"{}", time.monotonic() + timeout, None)


def test_a_reply_goes_to_the_caller_whose_token_it_carries() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    waiters = [make_waiter(b"a"), make_waiter(b"b")]
    for waiter in waiters:
        replies.add(waiter)
    replies.deliver(b"_INBOX.x.b", b"", b"for b", b"headers")
    assert waiters[1].wait()
    assert (waiters[1].data, waiters[1].headers) == (b"for b", b"headers")
    assert len(replies) == 1
    assert replies.withdraw(waiters[0])


@pytest.mark.parametrize("token", [b"late", b"doubled", b"forged", b"", b"token.more"])
def test_a_reply_that_nobody_waits_for_is_dropped_and_counted(token: bytes) -> None:
    replies = ReplyMap(b"_INBOX.x.")
    late, doubled = make_waiter(b"late"), make_waiter(b"doubled")
    replies.add(late)
    replies.withdraw(late)
    replies.add(doubled)
    replies.deliver(b"_INBOX.x.doubled", b"", b"1", None)
    replies.deliver(b"_INBOX.x." + token, b"", b"2", None)
    assert replies.strays == 1
    assert doubled.data == b"1"
    assert late.data == b""


def test_a_wait_ends_at_the_deadline() -> None:
    waiter = make_waiter(timeout=0.02)
    assert not waiter.wait()


def test_a_withdrawn_or_overdue_request_makes_no_bytes() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    for waiter in (make_waiter(b"withdrawn"), make_waiter(b"overdue", timeout=0)):
        replies.add(waiter)
        if waiter.token == b"withdrawn":
            replies.withdraw(waiter)
        assert waiter.frame(replies.prefix) == b""
        assert not waiter.sent


def test_a_request_that_leaves_is_marked_as_sent() -> None:
    seen: list[float] = []

    def make_headers(remaining: float) -> bytes:
        seen.append(remaining)
        return b"NATS/1.0\r\n\r\n"

    waiter = Waiter(b"t", b"subject", b"{}", time.monotonic() + 30, make_headers)
    assert waiter.frame(b"_INBOX.x.") == b"HPUB subject _INBOX.x.t 12 14\r\nNATS/1.0\r\n\r\n{}\r\n"
    assert waiter.sent
    assert 0 < seen[0] <= 30


def test_no_request_leaves_after_its_caller_was_told_otherwise() -> None:
    """The caller looks at ``sent`` after giving up, the loop at ``abandoned`` before sending: one sees the other."""

    class Interleaved(Waiter):
        """Gives up in the middle of `frame`, at each point where another thread could."""

        __slots__ = ("told_sent",)

        @property
        def abandoned(self) -> bool:  # type: ignore[override]
            self.told_sent = self.sent  # what a caller who gives up right now is told
            return True

        @abandoned.setter
        def abandoned(self, value: bool) -> None:
            pass

    waiter = Interleaved(b"t", b"subject", b"{}", time.monotonic() + 30, None)
    left = bool(waiter.frame(b"_INBOX.x."))
    assert not left
    assert waiter.told_sent, "one who gave up before this look may only be told what is safe: that it may have left"


def test_every_wait_can_be_ended_with_an_error_of_its_own() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    waiters = [make_waiter(b"%d" % n) for n in range(3)]
    for waiter in waiters:
        replies.add(waiter)
    assert replies.fail(ClosedError("the client")) == 3
    assert [str(waiter.error) for waiter in waiters] == ["the client is closed"] * 3
    assert len({id(waiter.error) for waiter in waiters}) == 3, "tracebacks of different threads must not mix"
    assert all(waiter.wait() for waiter in waiters)


def test_the_waits_for_one_subject_can_be_ended_alone() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    denied, other = make_waiter(b"1", subject=b"denied"), make_waiter(b"2", subject=b"other")
    replies.add(denied)
    replies.add(other)
    assert replies.fail(PermissionDenied("publish", "denied"), b"denied") == 1
    assert denied.wait()
    assert isinstance(denied.error, PermissionDenied)
    assert other.error is None


def test_failing_all_meanwhile_settles_nothing_twice() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    stop = threading.Event()
    problems: list[BaseException] = []

    def churn(thread: int) -> None:
        number = 0
        try:
            while not stop.is_set():
                waiter = make_waiter(b"%d.%d" % (thread, number))
                number += 1
                replies.add(waiter)
                if not replies.withdraw(waiter):
                    assert waiter.wait()
                    assert waiter.error is not None
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=churn, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        replies.fail(ClosedError("the client"))
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert problems == []


def test_a_callback_waiter_settles_once_and_lets_go() -> None:
    settled: list[Waiter] = []

    class Owner:
        def note(self, waiter: Waiter) -> None:
            settled.append(waiter)

    owner = Owner()
    alive = weakref.ref(owner)
    waiter = CallbackWaiter(b"t", b"s", b"{}", time.monotonic() + 30, None, owner.note, call_all)
    del owner
    replies = ReplyMap(b"_INBOX.x.")
    replies.add(waiter)
    replies.deliver(b"_INBOX.x.t", b"", b"1", None)
    replies.end_read()
    assert settled == [waiter]
    gc.disable()
    try:
        assert alive() is None, "a cycle would keep the payload of each answered request"
    finally:
        gc.enable()


def test_each_function_of_one_read_is_called_where_it_belongs() -> None:
    """A user's must never run where the library's own do: it may wait for them."""
    replies = ReplyMap(b"_INBOX.x.")
    called: dict[str, list[str]] = {"library": [], "users": []}

    def waiter(token: bytes, where: str) -> CallbackWaiter:
        def post(functions: list[Callable[[], object]]) -> None:
            called[where] += [where] * len(functions)

        return CallbackWaiter(token, b"s", b"{}", time.monotonic() + 30, None, lambda _: None, post)

    waiters = [waiter(b"a", "library"), waiter(b"b", "users"), waiter(b"c", "library")]
    for each in waiters:
        replies.add(each)
    answer_in_one_read(replies, *waiters)
    assert called == {"library": ["library"] * 2, "users": ["users"]}


def test_of_a_group_those_of_one_read_are_settled_together() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    settled: list[list[tuple[Any, bytes]]] = []
    group = Group(lambda waiters: settled.append([(each.about, each.data) for each in waiters]), call_all)
    waiters = [GroupWaiter(b"%d" % n, b"s", b"{}", time.monotonic() + 30, None, group, n) for n in range(4)]
    replies.add_all(waiters)
    answer_in_one_read(replies, waiters[2], waiters[0])
    assert replies.unanswered(group) == [waiters[1], waiters[3]]
    answer_in_one_read(replies, waiters[1])
    replies.fail(ClosedError("the client"))
    assert settled == [[(2, b"for 2"), (0, b"for 0")], [(1, b"for 1")], [(3, b"")]]
    assert isinstance(waiters[3].error, ClosedError)


def call_all(functions: list[Callable[[], object]]) -> None:
    for function in functions:
        function()


def answer_in_one_read(replies: ReplyMap, *waiters: Waiter) -> None:
    for waiter in waiters:
        replies.deliver(replies.prefix + waiter.token, b"", b"for " + waiter.token, None)
    replies.end_read()


def waiting_for(replies: ReplyMap, *waiters: Waiter) -> concurrent.futures.ThreadPoolExecutor:
    for waiter in waiters:
        replies.add(waiter)
    return concurrent.futures.ThreadPoolExecutor(max(len(waiters), 1))


def turn_waiter(token: bytes, timeout: float = 30.0) -> TurnWaiter:
    return TurnWaiter(token, b"subject", b"{}", time.monotonic() + timeout, None)


def test_of_the_callers_answered_in_one_read_each_wakes_the_next() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    waiters = [turn_waiter(b"%d" % n) for n in range(20)]
    with waiting_for(replies, *waiters) as threads:
        going_on = [threads.submit(replies.wait, waiter) for waiter in waiters]
        answer_in_one_read(replies, *waiters)
        assert all(future.result(30) for future in going_on)
    assert [waiter.data for waiter in waiters] == [b"for %d" % n for n in range(20)]


def test_callers_that_miss_their_turn_hold_nobody_up_for_long() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    waiters = [turn_waiter(b"%d" % n) for n in range(9)]
    held_up, others = waiters[:4], waiters[4:]
    with waiting_for(replies, *waiters) as threads:
        going_on = [threads.submit(replies.wait, waiter) for waiter in others]
        answer_in_one_read(replies, *waiters)
        assert all(future.result(30) for future in going_on)
    assert all(replies.wait(waiter) for waiter in held_up)


def test_each_read_lets_one_caller_go_on_and_the_last_is_told_of() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    told: list[bool] = []
    replies.on_all_woken = lambda: told.append(replies.waking)
    waiters = [turn_waiter(b"%d" % n) for n in range(9)]
    for waiter in waiters:
        replies.add(waiter)
    answer_in_one_read(replies, *waiters)
    asleep = [waiter for waiter in waiters if not waiter.wait(0)]
    assert asleep == waiters[1:]
    for waiter in asleep:
        assert replies.waking
        assert not told
        replies.end_read()
        assert waiter.wait(0)
    assert told == [False]


def test_a_caller_that_gave_up_before_its_turn_passes_it_on() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    waiters = [turn_waiter(b"%d" % n) for n in range(9)]
    for waiter in waiters:
        replies.add(waiter)
    answer_in_one_read(replies, *waiters)
    for gave_up in waiters[1:-1]:
        assert not replies.withdraw(gave_up)
    assert replies.wait(waiters[0])
    assert waiters[-1].wait(0)


def test_a_reply_that_is_put_down_at_the_deadline_counts() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    other, late = turn_waiter(b"other"), turn_waiter(b"late", timeout=0.01)
    for waiter in (other, late):
        replies.add(waiter)
        replies.deliver(replies.prefix + waiter.token, b"", b"just in time", None)
    # Nobody wakes it: its turn is lost, as when Ctrl-C comes just where another passes it on.
    assert replies.wait(late)
    assert late.data == b"just in time"
    assert replies.wait(other)
    assert not replies.waking


def test_one_that_waits_for_several_replies_does_not_hold_a_turn() -> None:
    replies = ReplyMap(b"_INBOX.x.")
    several, alone = [make_waiter(b"%d" % n) for n in range(9)], turn_waiter(b"alone")
    for waiter in (*several, alone):
        replies.add(waiter)
    answer_in_one_read(replies, *several, alone)
    assert alone.wait(0)
