"""Everything that LightLink does, done at once and without pause, with every item in the books."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import lightlink
from chaos.ledger import Calls, Events, Ledger, Transfers, Writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FILE = os.urandom(600_000)
_CHUNK = 16 * 1024


class Repeat:
    """Do something again and again, every ``pause`` seconds, on a thread of its own; an error ends it."""

    def __init__(self, action: Callable[[], object], pause: float) -> None:
        self._action = action
        self._pause = pause
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="chaos-load", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 60.0) -> None:
        """End it after the turn under way; raises what ended it before."""
        self._stopped.set()
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still at it after {timeout:g} s"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self._pause):
                self._action()
        except BaseException as exc:
            self._error = exc


@contextlib.contextmanager
def calling(
    client: lightlink.Client, calls: Calls, service: str, *, timeout: float = 5.0, pause: float = 0.001
) -> Iterator[None]:
    """Call ``service.work(number)`` in a loop on a thread of its own."""

    def call(number: int) -> Any:
        return client.call(service, "work", {"number": number}, timeout=timeout)

    repeat = Repeat(lambda: calls.make(call, timeout), pause)
    try:
        yield
    finally:
        repeat.stop()


class MixedLoad:
    """A service and a client of it with two callers, a publisher and a subscriber, a writer and a watch, and transfers.

    ``client_url`` and ``service_url`` are where each connects; ``settings`` go to both. ``window`` is how long, in
    seconds, it may take until a lost connection is noticed. A context manager; `finish` closes the books.
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        client_url: str | Sequence[str],
        service_url: str | Sequence[str],
        *,
        window: float = 3.0,
        call_timeout: float = 1.0,
        replicas: int = 1,
        **settings: Any,
    ) -> None:
        self._name = name
        self._timeout = call_timeout
        settings = {"timeout": 30.0, **settings}  # a cluster that has just come may elect for longer than 5 s
        self._stack = contextlib.ExitStack()
        self._repeats: list[Repeat] = []
        with contextlib.ExitStack() as undo:
            self.client = undo.enter_context(lightlink.connect(client_url, name=f"{name}-client", **settings))
            self.calls: Calls = ledger.open(Calls())
            self.events: Events = ledger.open(Events(self.client, f"events.{name}", window))
            self.writes: Writes = ledger.open(Writes())
            self.transfers: Transfers = ledger.open(Transfers())
            self._service = lightlink.Service(name, service_url, **settings)
            self._service.register("work", self.calls.run)
            undo.enter_context(self._service)
            self.client.subscribe(f"events.{name}", self.events.receive)
            self._bucket = self.client.state(name, replicas=replicas)
            self._bucket.watch(handler=lambda change: self.writes.watch(change.value))
            self._files = self.client.file_store(f"{name}_files", replicas=replicas)
            self._stack = undo.pop_all()

    def __enter__(self) -> MixedLoad:
        self._repeats = [
            Repeat(self._call, 0.004),
            Repeat(self._call, 0.004),
            Repeat(self.events.publish, 0.003),
            Repeat(self._write, 0.006),
            Repeat(self._transfer, 0.02),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for repeat in self._repeats:
                repeat.stop()
        finally:
            self._stack.close()

    def wait_progress(self, timeout: float = 60.0) -> None:
        """Wait until of everything some more has gone well; AssertionError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        goals = [
            (book, book.progress + more)
            for book, more in ((self.calls, 20), (self.events, 20), (self.writes, 20), (self.transfers, 2))
        ]
        for book, goal in goals:
            book.wait_for(lambda book=book, goal=goal: book.progress >= goal, max(deadline - time.monotonic(), 0.1))

    def finish(self) -> None:
        """Stop, and write down what is there in the end."""
        for repeat in self._repeats:
            repeat.stop()
        assert self.client.wait_connected(30)
        self.events.wait_delivered()
        self.writes.wait_watched()
        self.writes.close(int(key) for key in self._bucket.keys(timeout=30))

    def call_with(self, number: int) -> Any:
        """Call the service with a number of the calls' book."""
        return self.client.call(self._name, "work", {"number": number}, timeout=self._timeout)

    def submit_with(self, number: int) -> Any:
        """Do what `call_with` does, and return the future."""
        return self.client.submit(self._name, "work", {"number": number}, timeout=self._timeout)

    def _call(self) -> None:
        self.calls.make(self.call_with, self._timeout)

    def _write(self) -> None:
        self.writes.make(lambda number: self._bucket.set(str(number), number, timeout=self._timeout))

    def _transfer(self) -> None:
        self.transfers.make(self._store_and_fetch)

    def _store_and_fetch(self, number: int) -> bool:
        content = number.to_bytes(8, "big") + _FILE
        info = self._files.upload(io.BytesIO(content), chunk_size=_CHUNK)
        target = io.BytesIO()
        self._files.download(info.id, target)
        with contextlib.suppress(lightlink.LightLinkError):  # what is in no book: it is only not to fill the disk
            self._files.delete(info.id)
        return target.getvalue() == content


@contextlib.contextmanager
def balanced(ledger: Ledger, *args: Any, **settings: Any) -> Iterator[MixedLoad]:
    """Run a mixed load around a fault, check that all goes on after it, and balance the books."""
    with MixedLoad(ledger, *args, **settings) as load:
        load.wait_progress()
        yield load
        load.wait_progress()
        load.finish()
    ledger.balance()
