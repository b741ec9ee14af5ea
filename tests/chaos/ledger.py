"""The books of a scenario: what was asked for, what was answered, what really happened, and whether they agree.

Every call, event, write and transfer has a number. A book's ``figures`` are what is printed; its ``faults`` are numbers
of what must never happen, and have to be empty when the books are closed.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import lightlink
from lightlink.errors import CallError, DeadlineExceeded, OutboxFull, ServiceBusy, ServiceUnavailable, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What the scheduling of a busy machine may add, in seconds: to the instant at which a handler begins, and to that at
# which a caller goes on. What these are there to find takes an outage longer.
_LATE = 1.5
_OVERDUE = 2.0
# Between the end of a connection and its note in the books, in seconds.
_NOTED = 0.5

_DID_NOT_RUN = {error.__name__ for error in (ServiceUnavailable, ServiceBusy, DeadlineExceeded)}


class Book:
    """What is common to all: ``progress`` counts what went well, and can be waited for."""

    name = ""

    def __init__(self) -> None:
        self.progress = 0
        self.notes: list[str] = []  # what helps to explain a fault
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()

    def wait_for(self, check: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until something is so; AssertionError after ``timeout`` seconds."""
        with self._changed:
            assert self._changed.wait_for(check, timeout), f"{timeout:g} s have passed: {self}"

    def figures(self) -> dict[str, int]:
        """Return what happened, in numbers."""
        raise NotImplementedError

    def faults(self) -> dict[str, list[int]]:
        """Return, by name, the numbers of what must never happen."""
        raise NotImplementedError

    def __str__(self) -> str:
        with self._changed:
            counts = {**self.figures(), **{name: len(found) for name, found in self.faults().items()}}
        return f"{self.name}: " + ", ".join(f"{name} {count}" for name, count in counts.items())

    def _next(self) -> int:
        with self._changed:
            return next(self._numbers)

    def _note(self, succeeded: bool = True) -> None:
        """Count, with the lock held."""
        self.progress += succeeded
        self._changed.notify_all()


class Calls(Book):
    """Calls of a method that returns the number it is given, and calls `run` with it."""

    name = "calls"

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[int, str] = {}
        self._ended: dict[int, float] = {}
        self._runs: dict[int, list[float]] = collections.defaultdict(list)
        self._wrong: list[int] = []
        self._overdue: list[int] = []

    def make(self, call: Callable[[int], Any], timeout: float) -> str:
        """Make a call, ``call(number)``, that is to end within ``timeout`` seconds; return its outcome."""
        number = self._next()
        begun = time.monotonic()
        try:
            answer = call(number)
            outcome = "answered"
        except CallError as exc:
            answer = number
            outcome = type(exc).__name__
        ended = time.monotonic()
        self.settle(number, outcome, answer, ended)
        if ended - begun > timeout + _OVERDUE:
            self._overdue.append(number)
        return outcome

    def submit(self, submit: Callable[[int], Any]) -> Any:
        """Make a call whose future ``submit(number)`` returns, and return the future."""
        number = self._next()
        future = submit(number)
        future.add_done_callback(lambda done: self._settle_future(number, done))
        return future

    def reserve(self) -> int:
        """Return the number of a call that somebody else makes, and `settle` will tell of."""
        return self._next()

    def settle(self, number: int, outcome: str, answer: Any, ended: float) -> None:
        """Write down how a call ended, at an instant of `time.monotonic`."""
        with self._changed:
            self.outcomes[number] = outcome
            self._ended[number] = ended
            if answer != number:
                self._wrong.append(number)
            self._note(outcome == "answered")

    def run(self, number: int, begun: float | None = None) -> int:
        """Write down that the handler runs, and return the number: what a handler does."""
        with self._changed:
            self._runs[number].append(time.monotonic() if begun is None else begun)
            self._changed.notify_all()
        return number

    def count(self, *outcomes: str) -> int:
        """Return how many calls ended so."""
        return sum(outcome in outcomes for outcome in self.outcomes.values())

    def figures(self) -> dict[str, int]:
        return {"made": len(self.outcomes), **collections.Counter(self.outcomes.values()), "run": len(self._runs)}

    def faults(self) -> dict[str, list[int]]:
        answered = [number for number, outcome in self.outcomes.items() if outcome == "answered"]
        return {
            "run twice": [number for number, runs in self._runs.items() if len(runs) > 1],
            "run after the caller gave up": [number for number in self._runs if self._ran_late(number)],
            "run though it was said not to": [n for n in self._runs if self.outcomes.get(n) in _DID_NOT_RUN],
            "lost": [number for number in answered if number not in self._runs],
            "answered wrongly": self._wrong,
            "overdue": self._overdue,
        }

    def _ran_late(self, number: int) -> bool:
        given_up = self._ended.get(number)
        return given_up is not None and min(self._runs[number]) > given_up + _LATE

    def _settle_future(self, number: int, done: Any) -> None:
        error = done.exception()
        if error is not None and not isinstance(error, CallError):
            self.settle(number, repr(error), None, time.monotonic())
            return
        outcome = "answered" if error is None else type(error).__name__
        self.settle(number, outcome, done.result() if error is None else number, time.monotonic())


class Events(Book):
    """Events that one thread publishes through a client that subscribes to them too.

    One that left shortly before a connection was lost, at most ``window`` seconds, may be lost with it: core NATS
    delivers at most once. One published while the client knew of the outage may not.
    """

    name = "events"

    def __init__(self, client: lightlink.Client, subject: str, window: float) -> None:
        super().__init__()
        self._client = client
        self._subject = subject
        self._window = window
        self._published: dict[int, float] = {}
        self._losses: list[float] = []
        self._received: list[int] = []
        self._refused: list[int] = []
        client.on_status_change(self._note_status)

    def publish(self) -> None:
        """Publish the next event."""
        number = self._next()
        try:
            self._client.publish(self._subject, number)
        except OutboxFull:
            self._refused.append(number)
            return
        with self._changed:
            self._published[number] = time.monotonic()

    def receive(self, number: int) -> None:
        """Write down an event that has come: the handler."""
        with self._changed:
            self._received.append(number)
            self._note()

    def wait_delivered(self) -> None:
        """Wait until an event published now is received, and so all before it that will ever be."""
        while True:
            self.publish()
            number = max(self._published)
            try:
                self.wait_for(lambda: number in self._received, 30.0)  # noqa: B023 - called at once
                return
            except AssertionError:
                if self._client.status is lightlink.Status.CONNECTED:
                    raise

    def figures(self) -> dict[str, int]:
        lost = self._published.keys() - set(self._received)
        return {
            "published": len(self._published),
            "received": len(self._received),
            "refused": len(self._refused),
            "lost with a connection": sum(self._was_under_way(number) for number in lost),
        }

    def faults(self) -> dict[str, list[int]]:
        received = self._received
        return {
            "lost": [n for n in self._published.keys() - set(received) if not self._was_under_way(n)],
            "doubled": [number for number, times in collections.Counter(received).items() if times > 1],
            "out of order": [after for before, after in itertools.pairwise(received) if after < before],
            "received though refused": sorted(set(self._refused) & set(received)),
        }

    def _was_under_way(self, number: int) -> bool:
        published = self._published[number]
        return any(-_NOTED < loss - published < self._window for loss in self._losses)

    def _note_status(self, status: lightlink.Status) -> None:
        if status is lightlink.Status.RECONNECTING:
            self._losses.append(time.monotonic())


class Writes(Book):
    """Values set under keys of their own, so that each can be found again."""

    name = "writes"

    def __init__(self) -> None:
        super().__init__()
        self._outcomes: dict[int, str] = {}
        # A writer that waits for each outcome makes one attempt in each timeout while nobody leads the bucket: how many
        # fail tells of the election and the timeout, and how long it went on tells of the library.
        self._acknowledged_at = time.monotonic()
        self._silence = 0.0
        self._watched: set[int] = set()
        self._stored: set[int] | None = None

    def make(self, write: Callable[[int], int]) -> str:
        """Write, with ``write(number)``, and return the outcome: acknowledged, unknown or refused."""
        number = self._next()
        try:
            write(number)
            outcome = "acknowledged"
        except StateError as exc:
            outcome = "unknown" if exc.unknown else "refused"
        with self._changed:
            self._outcomes[number] = outcome
            if outcome == "acknowledged":
                instant = time.monotonic()
                self._silence = max(self._silence, instant - self._acknowledged_at)
                self._acknowledged_at = instant
            self._note(outcome == "acknowledged")
        return outcome

    def watch(self, number: Any) -> None:
        """Write down that the watch has told of a value: its handler."""
        with self._changed:
            self._watched.add(number)
            self._changed.notify_all()

    def wait_watched(self) -> None:
        """Wait until the watch has told of every write that was acknowledged."""
        self.wait_for(lambda: self._acknowledged() <= self._watched)

    def close(self, stored: Iterable[int]) -> None:
        """Write down what is there in the end."""
        self._stored = set(stored)

    def figures(self) -> dict[str, int]:
        return {
            "made": len(self._outcomes),
            **collections.Counter(self._outcomes.values()),
            "stored": len(self._stored or ()),
            "longest silence in ms": round(self._silence * 1000),
        }

    def faults(self) -> dict[str, list[int]]:
        refused = {number for number, outcome in self._outcomes.items() if outcome == "refused"}
        stored = self._acknowledged() if self._stored is None else self._stored
        return {
            "lost": sorted(self._acknowledged() - stored),
            "stored though it was said not to": sorted(refused & stored),
            "not watched": sorted(self._acknowledged() - self._watched),
        }

    def _acknowledged(self) -> set[int]:
        return {number for number, outcome in self._outcomes.items() if outcome == "acknowledged"}


class Transfers(Book):
    """Files stored and fetched again."""

    name = "transfers"

    def __init__(self) -> None:
        super().__init__()
        self._made = 0
        self._corrupt: list[int] = []
        self._failed: list[int] = []

    def make(self, transfer: Callable[[int], bool]) -> None:
        """Store and fetch a file with ``transfer(number)``, which tells whether it came back as it was."""
        number = self._next()
        with self._changed:
            self._made += 1
        try:
            same = transfer(number)
        except (lightlink.LightLinkError, OSError) as exc:
            self.notes.append(f"{number}: {exc!r}")
            self._failed.append(number)
            return
        with self._changed:
            if not same:
                self._corrupt.append(number)
            self._note(same)

    def figures(self) -> dict[str, int]:
        return {"made": self._made, "done": self.progress}

    def faults(self) -> dict[str, list[int]]:
        return {"failed": self._failed, "corrupt": self._corrupt}


class Ledger:
    """The books of a scenario."""

    def __init__(self) -> None:
        self.books: list[Book] = []

    def open(self, book: Any) -> Any:
        """Add a book, and return it."""
        self.books.append(book)
        return book

    def balance(self) -> None:
        """Check that nothing happened that must not."""
        faults = {
            f"{book.name} {name}": found[:20] for book in self.books for name, found in book.faults().items() if found
        }
        notes = [note for book in self.books for note in book.notes[:5]]
        assert not faults, f"{faults} {notes}\n{self}"

    def __str__(self) -> str:
        return "\n".join(map(str, self.books))
