"""Threads whose start is interrupted: Python waits for a thread to begin, and Ctrl-C ends that wait when it runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import lightlink
from lightlink.commands import CommandManager
from lightlink.concurrency.elastic import ElasticPool
from lightlink.concurrency.notifier import Notifier
from lightlink.concurrency.workers import WorkerPool
from lightlink.contrib.outbox import OutboxRelay

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartServer


class Begun(list[threading.Thread]):
    """The threads of some name that were started; the wait for the first one's begin is interrupted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        super().__init__()
        start = threading.Thread.start

        def start_interrupted(thread: threading.Thread) -> None:
            start(thread)
            if name in thread.name:
                self.append(thread)
                if len(self) == 1:
                    raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "start", start_interrupted)

    def end(self) -> None:
        """Wait for the end of all."""
        for thread in self:
            thread.join(30)
            assert not thread.is_alive()


OWNERS: dict[str, Callable[[Notifier], WorkerPool | ElasticPool | Notifier]] = {
    "workers": lambda _: WorkerPool("interrupted", 4),
    "elastic": lambda timer: ElasticPool("interrupted", timer),
    "notifier": lambda _: Notifier("interrupted"),
}


@pytest.mark.parametrize("kind", OWNERS)
def test_a_thread_whose_start_was_interrupted_has_an_owner(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Notifier("timer")
    owner = OWNERS[kind](timer)
    begun = Begun(monkeypatch, "interrupted")
    with pytest.raises(KeyboardInterrupt):
        owner.start()
    ran_on: list[threading.Thread] = []
    done = threading.Event()
    run = owner.post if isinstance(owner, Notifier) else owner.put
    run(lambda: (ran_on.append(threading.current_thread()), done.set()))
    assert done.wait(30)

    join, joined = threading.Thread.join, set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda thread, timeout: (joined.add(thread), join(thread, timeout)))
        owner.stop(30)
    assert set(ran_on) <= joined
    begun.end()
    timer.stop(30)


class NoRows:
    """An outbox in which nothing is."""

    def take(self, most: int, send: object) -> int:
        return 0

    def close(self) -> None:
        """Nothing to give back."""


@pytest.mark.parametrize("what", ["leader", "changes", "outbox"])
def test_what_was_interrupted_as_it_started_runs_no_more(
    what: str, fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lightlink.connect(fresh_server().url) as client, CommandManager(client) as manager:
        starts: dict[str, Callable[[], object]] = {
            "leader": lambda: client.leader("a", ttl=60),
            "changes": manager.watch,
            "outbox": OutboxRelay(NoRows(), client).start,
        }
        begun = Begun(monkeypatch, f"lightlink-{what}")
        with pytest.raises(KeyboardInterrupt):
            starts[what]()
        begun.end()
