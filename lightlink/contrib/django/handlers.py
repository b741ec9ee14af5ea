"""Handlers that use the database as views do: on connections that are looked after, in a transaction if wanted."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from django.db import connections, transaction

from lightlink.errors import BatchFailed, Later

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Handler = TypeVar("Handler", bound="Callable[..., Any]")


@overload
def with_database(handler: Handler) -> Handler: ...
@overload
def with_database(*, atomic: Sequence[str] = ()) -> Callable[[Handler], Handler]: ...
def with_database(handler: Any = None, *, atomic: Sequence[str] = ()) -> Any:
    """Have a handler treat its thread's database connections as Django treats those of a request.

    Before and after it, those that are too old or broken are closed: after a restart of the database the next handler
    connects anew. With ``atomic`` it runs in a transaction on each of these databases, which is committed before the
    reply or acknowledgement goes out and rolled back if the handler raises; a batch of which some have failed is rolled
    back, and comes again, as a whole. `Service` and `Agent` of this package do
    this by themselves; it is for handlers of `Client.subscribe`, of watches and of callbacks.
    """
    if handler is None:
        return lambda decorated: with_database(decorated) if not atomic else _wrap(decorated, lambda: tuple(atomic))
    return _wrap(handler, lambda: tuple(atomic))


class Wrapper:
    """Does what `with_database` does, with databases that are looked up as a handler is called.

    A handler that is registered twice is one to its service: it shares the events of both.
    """

    def __init__(self, databases: Callable[[], tuple[str, ...]]) -> None:
        self._databases = databases
        self._wrapped: dict[Any, Any] = {}
        # The connections that handlers have left open on their threads, as CONN_MAX_AGE has it.
        self._kept: list[Any] = []

    def __call__(self, handler: Handler) -> Handler:
        """Return the handler, wrapped."""
        if not callable(handler):
            return handler  # which is refused where it is registered
        if handler not in self._wrapped:
            self._wrapped[handler] = _wrap(handler, self._databases, self._keep)
        return cast("Handler", self._wrapped[handler])

    def close_connections(self) -> None:
        """Close what handlers have left open on threads that have ended; not for use in a handler."""
        kept, self._kept = self._kept, []
        for connection in kept:
            if not connection.in_atomic_block:
                connection.inc_thread_sharing()  # its own thread, which alone may use it otherwise, is gone
                connection.close()

    def _keep(self) -> None:
        for connection in _own_connections():
            if connection.connection is not None and connection not in self._kept:
                self._kept.append(connection)

    @property
    def is_handling(self) -> bool:
        """Whether the caller runs on the thread of a handler that has kept a connection."""
        return any(each in self._kept for each in connections.all(initialized_only=True))


def _wrap(
    handler: Callable[..., Any], databases: Callable[[], tuple[str, ...]], after: Callable[[], None] | None = None
) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _close_old_connections()
        aliases = databases()
        try:
            with ExitStack() as stack:
                for alias in aliases:
                    stack.enter_context(transaction.atomic(using=alias))
                return handler(*args, **kwargs)
        except BatchFailed as exc:
            if aliases:
                raise _whole(exc, len(args[0])) from exc
            raise
        finally:
            _close_old_connections()
            if after is not None:
                after()

    return wrapped


def _whole(failed: BatchFailed, size: int) -> BatchFailed:
    """Return the error for a batch that was rolled back: what has not failed in it comes again, as it is undone too."""
    return BatchFailed({**dict.fromkeys(range(size), Later(0.0)), **failed.errors}) if failed.errors else failed


def _own_connections() -> Iterator[Any]:
    """Yield those of this thread that are no caller's: one in a transaction is a `TestCase`'s, or a view's."""
    return (each for each in connections.all(initialized_only=True) if not each.in_atomic_block)


def _close_old_connections() -> None:
    for connection in _own_connections():
        connection.close_if_unusable_or_obsolete()
