"""Keep the server's permission errors for the calls that they belong to."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightlink.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bound memory for publishers that never flush.
_PUBLISHES_KEPT = 100


class Denials:
    """The refusals nobody has been told of yet. Used on the loop's thread, but for those that take."""

    def __init__(self, identity: str = "", certified: bool = False) -> None:
        self._identity = identity
        self._certified = certified  # it is that of a certificate of ours, whose grants are known
        self._asking: Counter[str] = Counter()
        self._subscriptions: set[str] = set()
        self._publishes: deque[PermissionDenied] = deque(maxlen=_PUBLISHES_KEPT)
        # How often there was one subscription too many.
        self.exceeded = 0

    @contextmanager
    def asking(self, subject: str) -> Iterator[None]:
        """Remember a refusal of a subscription until all who are subscribing to the same subject have looked."""
        self._asking[subject] += 1
        try:
            yield
        finally:
            self._asking[subject] -= 1
            if not self._asking[subject]:
                del self._asking[subject]
                self._subscriptions.discard(subject)

    def check(self, subject: str) -> None:
        """Raise PermissionDenied when a subscription to the subject has been refused."""
        if subject in self._subscriptions:
            raise self.denied("subscribe", subject)

    def denied(self, operation: str, subject: str) -> PermissionDenied:
        """Return the error for a refusal, with who was refused, and what would allow it."""
        if not self._certified:
            return PermissionDenied(operation, subject, self._identity)
        from lightlink.protocol.permissions import grant_for  # noqa: PLC0415 - its tables are needed now only

        return PermissionDenied(operation, subject, self._identity, grant_for(operation, subject))

    def add_subscription(self, subject: str) -> bool:
        """Note a refused subscription; tell whether somebody is there to ask."""
        asked = subject in self._asking
        if asked:
            self._subscriptions.add(subject)
        return asked

    def add_exceeded(self) -> bool:
        """Note a subscription beyond the server's limit, which does not say which; tell whether somebody is asking."""
        self.exceeded += 1
        return bool(self._asking)

    def add_publish(self, error: PermissionDenied) -> None:
        """Note a refused publish, for the next flush."""
        self._publishes.append(error)

    def take_publish(self) -> PermissionDenied | None:
        """Return the oldest refused publish since the last look, and forget the others."""
        try:
            first = self._publishes.popleft()
        except IndexError:
            return None
        self._publishes.clear()
        return first

    def take_publish_to(self, subject: str) -> PermissionDenied | None:
        """Return a refused publish to one subject, and forget that; the others wait for `take_publish`."""
        for error in list(self._publishes):
            if error.subject == subject:
                self._publishes.remove(error)
                return error
        return None
