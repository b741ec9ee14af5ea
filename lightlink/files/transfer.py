"""One upload or download under way: how far it is, how patient, and its errors as the user gets them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.connection import NoReply
from lightlink.errors import LinkError, TransferStalled
from lightlink.jetstream.errors import JetStreamError
from lightlink.jetstream.retry import OutOfTime
from lightlink.progress import ProgressBar, is_wanted
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

# Called with the bytes done and all there are, None while nobody can tell; True shows a bar.
Progress = Callable[[int, int | None], object] | bool


class Transfer:
    """Facts of a transfer; ``total`` is None while nobody can tell. Raises InvalidOption."""

    def __init__(
        self, what: str, file_id: str, total: int | None, stall_timeout: float, progress: Progress | None
    ) -> None:
        self._bar = ProgressBar(what, total, "B") if is_wanted(progress) else None
        self.file_id = file_id
        self.total = total
        self.done = 0
        self.stall_timeout = seconds("stall_timeout", stall_timeout)
        self._what = what
        self._progress = self._bar.show if self._bar is not None else None if isinstance(progress, bool) else progress
        self._told: tuple[int, int | None] | None = None

    def tell(self) -> None:
        """Tell the user how far it is, unless that is known; what the user's function raises ends the transfer."""
        now = (self.done, self.total)
        if self._progress is not None and now != self._told:
            self._told = now
            self._progress(*now)

    def deadline(self) -> Deadline:
        """Return when it is stalled if nothing has come until then."""
        return Deadline(self.stall_timeout)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise TransferStalled and LinkError for what only the library knows."""
        try:
            with operation(self._what):
                yield
        except OutOfTime as exc:
            raise TransferStalled(self.file_id, self.done, self.total, self.stall_timeout) from exc
        finally:
            if self._bar is not None:
                self._bar.close()


@contextlib.contextmanager
def operation(what: str) -> Iterator[None]:
    """Raise LinkError when JetStream refuses or does not answer."""
    try:
        yield
    except JetStreamError as exc:
        raise LinkError(what, exc.description) from exc
    except NoReply as exc:
        raise LinkError(what, str(exc)) from exc
