"""State in buckets, and what is built on it: locks and elections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from msgspec import UNSET

from lightlink.client.base import ClientBase
from lightlink.concurrency.threads import refuse_at_exit
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeVar

    from lightlink.state import BucketInfo, StateBucket, StateChange, StateWatch
    from lightlink.state.lock import Leader
    from lightlink.state.lock import Lock as NamedLock

    T = TypeVar("T")


class State(ClientBase):
    """A client's state."""

    _default_bucket: StateBucket[Any] | None = None

    @overload
    def state(self, bucket: str = ..., *, value_type: type[T], **options: Any) -> StateBucket[T]: ...
    @overload
    def state(self, bucket: str = ..., *, value_type: Any = ..., **options: Any) -> StateBucket[Any]: ...
    def state(self, bucket: str = subjects.STATE_BUCKET, *, value_type: Any = Any, **options: Any) -> StateBucket[Any]:
        """Return a bucket of values, which is made at the first write if it is not there.

        Values are read as ``value_type``; with ``bytes`` they are bytes as they are. ``options`` are those of
        `BucketOptions` and count only when the bucket is made: history, ttl, storage, replicas, max_value_size, ...
        Raises InvalidName, InvalidOption.
        """
        refuse_at_exit()
        from lightlink.state import BucketOptions, StateBucket  # noqa: PLC0415 - not every program has state

        made_with = BucketOptions.from_settings(options)
        return StateBucket(self._connection, bucket, value_type, made_with, self._subscriptions.add)

    @property
    def _state(self) -> StateBucket[Any]:
        if self._default_bucket is None:
            self._default_bucket = self.state()
        return self._default_bucket

    def set_state(self, key: str, value: Any, *, ttl: float | None = None, timeout: float | None = None) -> int:
        """Store a value in the default bucket and return its revision; see `StateBucket.set`."""
        return self._state.set(key, value, ttl=ttl, timeout=timeout)

    def create_state(self, key: str, value: Any, *, ttl: float | None = None, timeout: float | None = None) -> int:
        """Store a value if the key has none; see `StateBucket.create`."""
        return self._state.create(key, value, ttl=ttl, timeout=timeout)

    def update_state(
        self, key: str, value: Any, *, revision: int, ttl: float | None = None, timeout: float | None = None
    ) -> int:
        """Store a value if the key still has the revision it is based on; see `StateBucket.update`."""
        return self._state.update(key, value, revision=revision, ttl=ttl, timeout=timeout)

    def get_state(self, key: str, default: Any = UNSET, *, timeout: float | None = None) -> Any:
        """Return the value of a key, or ``default``, or raise StateNotFound; see `StateBucket.get`."""
        return self._state.get(key, default, timeout=timeout)

    def delete_state(self, key: str, *, revision: int | None = None, timeout: float | None = None) -> None:
        """Remove the value of a key; see `StateBucket.delete`."""
        self._state.delete(key, revision=revision, timeout=timeout)

    def watch_state(
        self,
        pattern: str = ">",
        handler: Callable[[StateChange[Any]], object] | None = None,
        *,
        since: int | Literal["now"] | None = None,
        timeout: float | None = None,
    ) -> StateWatch[Any]:
        """Follow keys of the default bucket: first their values, then every change; see `StateBucket.watch`."""
        return self._state.watch(pattern, handler, since=since, timeout=timeout)

    def buckets(self, *, timeout: float | None = None) -> list[BucketInfo]:
        """Return all buckets of state that this identity may see, by name; raises StateError, PermissionDenied."""
        from lightlink.jetstream import api  # noqa: PLC0415 - not every program has state
        from lightlink.state.failures import Failures  # noqa: PLC0415
        from lightlink.state.options import BucketInfo  # noqa: PLC0415

        with Failures("*", "buckets"):
            found = api.streams_on(self._connection, f"{subjects.KEYS}>", self._limit(timeout))
        return sorted(
            (BucketInfo.of(each) for each in found if each.config.name.startswith(subjects.STATE_STREAMS)), key=_name_of
        )

    # One of many ------------------------------------------------------------------------------------------------------

    def lock(self, name: str, *, ttl: float = 30.0, wait: float = 0.0, **options: Any) -> NamedLock:
        """Return a lock that one process at a time has, on whatever host: ``with client.lock("nightly") as lock:``.

        It ends ``ttl`` seconds (at least 1) after its holder died. Entering waits up to ``wait`` seconds, then raises
        LockHeld. ``options`` are those of `BucketOptions`, for the bucket ``light_link_locks`` when it is made: say
        ``replicas=3`` in a cluster. Raises InvalidName, InvalidOption; needs nats-server 2.11 or later.
        """
        from lightlink.state.lock import BUCKET, Lock  # noqa: PLC0415 - not every program has locks

        subjects.stored_key(name)
        return Lock(self.state(BUCKET, **options), name, ttl, wait, self.options.name)

    def leader(
        self,
        name: str,
        *,
        on_elected: Callable[[NamedLock], object] | None = None,
        on_lost: Callable[[], object] | None = None,
        ttl: float = 30.0,
        **options: Any,
    ) -> Leader:
        """Take part in the election of one among many processes, from now on until `Leader.stop`.

        ``on_elected(lock)`` is called when this one leads, ``on_lost()`` when it does so no more; another leads at most
        ``ttl`` seconds after the leader died. Raises the errors of `lock`.
        """
        from lightlink.state.lock import Leader  # noqa: PLC0415 - not every program elects

        return Leader(self.lock(name, ttl=ttl, **options), on_elected, on_lost)


def _name_of(bucket: BucketInfo) -> str:
    return bucket.name
