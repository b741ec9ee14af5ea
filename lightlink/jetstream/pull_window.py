"""How much may be on its way to a reader: pull requests under way, and what waits for the reader."""

from __future__ import annotations

from lightlink.concurrency.threads import Lock

# How many messages are likely to fit while none has been seen yet.
_AT_FIRST = 16


class _Pull:
    """A pull request under way: what it may still bring."""

    __slots__ = ("messages", "number", "size")

    def __init__(self, number: int, messages: int, size: int) -> None:
        self.number = number
        self.messages = messages
        self.size = size


class Window:
    """Keeps what is asked for and what is held within ``messages`` and ``size`` bytes.

    Half the window is asked for at a time, and again once half of that has come, so that the stream never pauses for a
    round trip while the reader keeps up. Only `release` is called off the loop's thread.
    """

    def __init__(self, messages: int, size: int) -> None:
        self.pull_messages = max(messages // 2, 1)
        self.pull_size = max(size // 2, 1)
        self._pulls: list[_Pull] = []
        self._number = 0
        self._largest = 0
        self._held = 0
        self._held_size = 0
        self._starved = False
        self._lock = Lock()

    def limit(self, messages: int, size: int) -> None:
        """Ask for no more at a time than a consumer allows; 0 means that it does not say."""
        if messages > 0:
            self.pull_messages = min(self.pull_messages, messages)
        if size > 0:
            self.pull_size = min(self.pull_size, size)

    @property
    def under_way(self) -> bool:
        """Whether the server owes an answer to a pull request."""
        return bool(self._pulls)

    def wants_pull(self) -> bool:
        """Tell whether another pull request is to be sent now."""
        messages = sum(pull.messages for pull in self._pulls)
        size = sum(pull.size for pull in self._pulls)
        if messages > self.pull_messages // 2 and size > self.pull_size // 2:
            return False
        with self._lock:
            room = self._held + messages <= self.pull_messages and self._held_size + size <= self.pull_size
            self._starved = not room
        return room

    def cautious_messages(self) -> int:
        """Return how many messages to ask for when the server is not told a limit in bytes: as many as likely fit."""
        likely = self._largest or self.pull_size // _AT_FIRST
        return max(1, min(self.pull_messages, self.pull_size // max(likely, 1)))

    def pulled(self, messages: int) -> int:
        """Note that a pull request for so many messages is sent, and return its number."""
        self._number += 1
        self._pulls.append(_Pull(self._number, messages, self.pull_size))
        return self._number

    def arrived(self, size: int) -> None:
        """Note a message that came in answer to the oldest pull request."""
        self._largest = max(self._largest, size)
        if self._pulls:
            pull = self._pulls[0]
            pull.messages -= 1
            pull.size = max(pull.size - size, 0)
            if not pull.messages:
                del self._pulls[0]

    def ended(self, number: int) -> bool:
        """Note that the server has ended a pull request; False says that it is none of those under way."""
        before = len(self._pulls)
        self._pulls = [pull for pull in self._pulls if pull.number != number]
        return len(self._pulls) < before

    def expects(self, number: int) -> bool:
        """Tell whether a pull request is under way."""
        return any(pull.number == number for pull in self._pulls)

    def forget(self) -> None:
        """Expect nothing any more of the pull requests sent so far."""
        self._pulls.clear()

    def hold(self, size: int) -> None:
        """Note a message that waits for the reader."""
        with self._lock:
            self._held += 1
            self._held_size += size

    def release(self, size: int) -> bool:
        """Note that the reader is done with a message; tell whether the loop waits for that to ask for more."""
        with self._lock:
            self._held -= 1
            self._held_size -= size
            if not self._starved or self._held * 2 > self.pull_messages or self._held_size * 2 > self.pull_size:
                return False
            self._starved = False
            return True
