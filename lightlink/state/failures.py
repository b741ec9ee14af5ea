"""The one door through which JetStream's errors leave the state half, as errors of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.connection.connection import NoReply
from lightlink.errors import LightLinkError, RevisionConflict, StateError
from lightlink.jetstream.errors import WRONG_LAST_SEQUENCE, JetStreamError

if TYPE_CHECKING:
    from types import TracebackType


class Failures:
    """A context in which JetStreamError, NoReply and TimeoutError become StateError or RevisionConflict.

    ``writes`` says that a request without an answer may have been carried out. A RevisionConflict needs the ``key`` and
    what was ``expected`` of it.
    """

    __slots__ = ("_bucket", "_expected", "_key", "_operation", "_writes")

    def __init__(
        self, bucket: str, operation: str, *, writes: bool = False, key: str = "", expected: int | None = None
    ) -> None:
        self._bucket = bucket
        self._operation = operation
        self._writes = writes
        self._key = key
        self._expected = expected

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, NoReply):
            reason = f"no answer within {error.timeout:.3g} s" if error.sent else "not connected; it was not sent"
            raise StateError(self._bucket, self._operation, reason, self._writes and error.sent) from None
        if isinstance(error, JetStreamError):
            if error.err_code in WRONG_LAST_SEQUENCE and self._expected is not None:
                raise RevisionConflict(self._bucket, self._key, self._expected) from error
            raise StateError(self._bucket, self._operation, str(error)) from error
        if isinstance(error, TimeoutError) and not isinstance(error, LightLinkError):
            raise StateError(self._bucket, self._operation, str(error)) from error
