from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest
import uvloop
from helpers.process import run_python

import lightlink
from lightlink.concurrency.loop import LoopThread
from lightlink.errors import ClosedError, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    thread.start()
    yield thread
    thread.stop(10)


def test_a_coroutine_function_runs_on_the_loops_own_thread(loop: LoopThread) -> None:
    async def where(extra: str) -> tuple[str, str]:
        return threading.current_thread().name, extra

    assert loop.run(where, "x", timeout=30) == ("lightlink-loop-test", "x")


def test_an_interrupt_while_it_starts_leaves_no_thread(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python waits for a thread to begin, and Ctrl-C ends that wait when the thread runs already."""
    start = threading.Thread.start
    begun: list[threading.Thread] = []

    def start_interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("lightlink-loop"):
            begun.append(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_interrupted)
    with pytest.raises(KeyboardInterrupt):
        LoopThread("test").start()
    with pytest.raises(KeyboardInterrupt):
        lightlink.connect(url)
    assert len(begun) == 2
    for thread in begun:
        thread.join(30)
        assert not thread.is_alive()


def test_closed_standard_descriptors_become_no_sockets(url: str) -> None:
    """libuv ends the process as it closes a socket that has the number of one of them."""
    ended = run_python(
        """
        import os, sys, lightlink
        os.close(0)
        os.close(1)
        with lightlink.connect(sys.argv[1]) as client:
            client.flush()
        """,
        url,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_coroutine_raises_is_raised_in_the_caller(loop: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        loop.run(fail, timeout=30)


def test_its_own_timeout_cancels_the_coroutine(loop: LoopThread) -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError, match=r"no result within 0\.05 s"):
        loop.run(hang, timeout=0.05)
    assert cancelled.wait(30)


@pytest.mark.parametrize("kind", [asyncio.TimeoutError, TimeoutError])
def test_a_timeout_raised_inside_keeps_its_own_text(kind: type[Exception], loop: LoopThread) -> None:
    async def fail() -> None:
        raise kind("theirs")

    with pytest.raises(TimeoutError, match="theirs"):
        loop.run(fail, timeout=30)


def test_running_on_the_loops_own_thread_is_refused_by_name(loop: LoopThread) -> None:
    async def inner() -> None:
        pass

    async def outer() -> None:
        loop.run(inner, timeout=30)

    with pytest.raises(ClosedError, match="lightlink-loop-test is the thread a blocking method was called from"):
        loop.run(outer, timeout=30)


def test_a_failure_to_start_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loop(*args: object, **kwargs: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(uvloop, "run", no_loop)
    with pytest.raises(ResourceExhausted, match="too many open files"):
        LoopThread("unlucky").start()


def test_a_stopped_loop_has_no_thread_and_refuses_work() -> None:
    thread = LoopThread("brief")
    thread.start()
    assert thread.stop(10)
    assert thread.stop(10)
    assert "lightlink-loop-brief" not in [each.name for each in threading.enumerate()]
    thread.call_soon(lambda: None)

    async def nothing() -> None:
        pass

    with pytest.raises(ClosedError):
        thread.run(nothing, timeout=30)


def test_a_thread_with_the_ident_of_an_ended_loop_is_not_its_own() -> None:
    ended = LoopThread("ended")
    ended.start()
    assert ended.stop(10)
    ended.ident = threading.get_ident()  # as the operating system gives it again
    assert not ended.is_own_thread
    ended.refuse_own_thread()


def test_stopping_cancels_what_still_runs_and_tells_its_caller() -> None:
    thread = LoopThread("test")
    thread.start()
    outcome: list[object] = []
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.sleep(60)

    def work() -> None:
        try:
            thread.run(hang, timeout=60)
        except ClosedError as exc:
            outcome.append(exc)

    caller = threading.Thread(target=work)
    caller.start()
    assert begun.wait(30)
    assert thread.stop(10)
    caller.join(10)
    assert [str(each) for each in outcome] == ["the client was closed meanwhile"]


@pytest.mark.filterwarnings("error")
def test_what_comes_while_the_loop_ends_is_told_so_at_once() -> None:
    thread = LoopThread("ending")
    thread.start()
    ending = threading.Event()
    go_on = threading.Event()
    outcome: list[BaseException] = []

    async def nothing() -> None:
        raise AssertionError("it was run")

    async def hold_up() -> AsyncIterator[int]:
        try:
            yield 1
        finally:  # closed once all tasks have ended, as the last the loop does
            ending.set()
            await asyncio.get_running_loop().run_in_executor(None, go_on.wait, 30)

    async def leave_open() -> AsyncIterator[int]:
        opened = hold_up()
        await opened.__anext__()
        return opened

    def work() -> None:
        try:
            thread.run(nothing, timeout=600)
        except BaseException as exc:
            outcome.append(exc)

    kept = thread.run(leave_open, timeout=30)
    stopping = threading.Thread(target=thread.stop, args=(30,))
    stopping.start()
    assert ending.wait(30)
    caller = threading.Thread(target=work)
    caller.start()
    caller.join(30)
    assert not caller.is_alive()
    go_on.set()
    stopping.join(30)
    del kept
    gc.collect()
    assert [str(each) for each in outcome] == ["the client was closed meanwhile"]


def test_a_call_soon_is_run_on_the_loop(loop: LoopThread) -> None:
    done = threading.Event()
    loop.call_soon(done.set)
    assert done.wait(30)


def test_a_loop_left_running_does_not_keep_the_interpreter() -> None:
    code = """
    from lightlink.concurrency.loop import LoopThread
    loop = LoopThread("left")
    loop.start()
    """
    result = run_python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_interrupt_ends_the_wait_and_cancels_the_coroutine() -> None:
    code = """
    import asyncio, os, signal, threading
    from lightlink.concurrency.loop import LoopThread
    loop = LoopThread("test")
    loop.start()
    begun, cancelled = threading.Event(), threading.Event()
    async def hang():
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
    threading.Thread(target=lambda: (begun.wait(30), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
    try:
        loop.run(hang, timeout=60)
    except KeyboardInterrupt:
        print("interrupted", cancelled.wait(30))
    """
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("interrupted True\n", "")
