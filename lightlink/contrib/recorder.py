"""What is published, as a test wants to look at it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import Condition, wait_until
from lightlink.errors import DecodeError, InvalidOption
from lightlink.events.message import read_arrival
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.client import Client
    from lightlink.events.message import Message

_MOST_NAMED = 20


class EventRecorder:
    """Notes the events on the subjects that it listens to.

    It does not listen to everything: whoever calls a service that nobody serves, or reads a bucket that is not there,
    is told so by the server because nobody hears the request.
    """

    def __init__(self, client: Client, listen_to: Sequence[str] = ()) -> None:
        self._messages: list[Message] = []
        self._patterns: list[str] = []
        self._changed = Condition()
        self._client = client
        self.listen(*listen_to)

    def listen(self, *patterns: str) -> EventRecorder:
        """Note from now on what comes on these subjects, whose first token is no wildcard; returns itself.

        Raises InvalidName, InvalidOption.
        """
        for pattern in patterns:
            subjects.subscribe_subject(pattern)
            if pattern.startswith(("*", ">", "$")):
                reason = "begins with a wildcard or '$': requests that nobody answers would be heard, and be waited for"
                raise InvalidOption("subject", reason, pattern)
            if not self._covers(pattern):
                self._listen(pattern)
        return self

    @property
    def messages(self) -> list[Message]:
        """All that has come, in order; data that is not JSON is bytes."""
        with self._changed:
            return list(self._messages)

    def wait_for(self, subject: str, timeout: float = 5.0, *, count: int = 1, data: Any = ...) -> Message:
        """Return the message on a subject, which may hold wildcards; wait ``timeout`` seconds at most.

        Those that have come since it listens to the subject (`listen`; else from now on) count, too. With ``count`` it
        is the last of so many; ``data`` is what it has to hold. Raises AssertionError, which says what did come, and
        InvalidName, InvalidOption.
        """
        was_heard = self._covers(subject)
        self.listen(subject)
        limit = seconds("timeout", timeout)
        deadline = Deadline(limit)
        with self._changed:
            wait_until(self._changed, lambda: len(self._matching(subject, data)) >= count, deadline.remaining())
            found = self._matching(subject, data)
            if len(found) >= count:
                return found[count - 1]
            came = self._came()
        wanted = f"{count} messages" if count > 1 else "a message"
        holding = "" if data is ... else f" with {data!r}"
        hint = "" if was_heard else f" (heard from then on; to hear earlier ones call listen({subject!r}) before)"
        raise AssertionError(
            f"{wanted} on {subject!r}{holding} did not come within {limit:g} s{hint}; what came: {came}"
        )

    def clear(self) -> None:
        """Forget what has come."""
        with self._changed:
            self._messages.clear()

    def _listen(self, pattern: str) -> None:
        # Before it is subscribed: its events are looked up among the patterns.
        self._patterns.append(pattern)
        try:
            # On the loop's thread, where the events of all patterns come in one order.
            self._client.connection.subscribe(pattern, "", partial(self._note, pattern))
        except BaseException:
            self._patterns.remove(pattern)  # it would hide those that it covers
            raise

    def _covers(self, subject: str) -> bool:
        return any(subjects.matches(pattern, subject) for pattern in self._patterns)

    def _matching(self, subject: str, data: Any) -> list[Message]:
        return [
            each
            for each in self._messages
            if subjects.matches(subject, each.subject) and (data is ... or each.data == data)
        ]

    def _came(self) -> str:
        if not self._messages:
            return "nothing"
        shown = [f"{each.subject} {each.data!r}"[:200] for each in self._messages[-_MOST_NAMED:]]
        earlier = len(self._messages) - len(shown)
        return "; ".join([*([f"{earlier} earlier ones"] if earlier else []), *shown])

    def _note(self, pattern: str, *arrival: Any) -> None:
        # An event comes once for each pattern that matches: the first one's counts.
        subject = as_text(arrival[0])
        if pattern != next(each for each in self._patterns if subjects.matches(each, subject)):
            return
        try:
            message = read_arrival(arrival, raw=False)
        except DecodeError:
            message = read_arrival(arrival, raw=True)
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()
