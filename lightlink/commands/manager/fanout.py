"""One reader of all changes for a whole process, however many watch.

Reading a change, finding its request and putting the two together costs the same for one watcher as for fifty, so it is
done once. Each watcher has a queue of its own; one that falls far behind is ended, and nobody waits for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from lightlink.commands.store import schema
from lightlink.commands.store.changes import Changes
from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.concurrency.threads import Lock, start_thread
from lightlink.errors import ClosedError, LightLinkError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.store.changes import Change
    from lightlink.commands.store.store import CommandStore

_log = logging.getLogger("lightlink")

# So many changes may wait for a watcher.
_BEHIND = 4096
_LOOK_SECONDS = 0.5


@attrs.define(eq=False)
class Watcher:
    """Somebody who watches the commands of one client, or of all, from now on; made by `Fanout.watch`."""

    client_id: str | None
    _leave: Callable[[Watcher], None]
    _queue: MessageQueue = attrs.field(factory=lambda: MessageQueue(_BEHIND, 1 << 40), init=False)
    _failure: LightLinkError | None = attrs.field(default=None, init=False)

    def get(self, timeout: float) -> Change | None:
        """Return the next change, None when there is none within ``timeout`` seconds.

        Raises ClosedError when none will come, StoreUnavailable when it fell behind or the changes cannot be read.
        """
        try:
            change: Change = self._queue.get(instant_after(timeout))
        except TimeoutError:
            return None
        except Closed:
            raise self._failure or ClosedError("the watch of all commands") from None
        return change

    def put(self, change: Change) -> None:
        """Hand over a change; called by the reader, which does not wait."""
        if self.client_id in (None, change.command.client_id) and not self._queue.put(change, 0):
            self.end(StoreUnavailable("following all commands", f"more than {_BEHIND} changes wait to be taken"))

    def end(self, failure: LightLinkError | None) -> None:
        """Hand over no more; what waits can still be got."""
        self._failure = self._failure or failure
        self._queue.close()

    def close(self) -> None:
        """Watch no more; idempotent."""
        self.end(None)
        self._leave(self)


class Fanout:
    """Watchers of the commands of a manager of some name, and the one reader that there is while there are any."""

    def __init__(self, store: CommandStore, name: str) -> None:
        self._store = store
        self._name = name
        self._lock = Lock()
        self._watchers: tuple[Watcher, ...] = ()
        self._changes: Changes | None = None

    def watch(self, client_id: str | None = None) -> Watcher:
        """Begin to watch the commands of a client, or of all; raises InvalidName, StoreUnavailable."""
        if client_id is not None:
            schema.client_id(client_id)
        watcher = Watcher(client_id, self._leave)
        with self._lock:
            changes = self._changes or Changes(self._store)
            self._watchers = (*self._watchers, watcher)
            is_first, self._changes = self._changes is None, changes
        if is_first:
            try:
                start_thread(self._read, f"lightlink-changes-{self._name}", changes)
            except BaseException:
                # Those that came meanwhile would wait for a thread that may never read.
                self._fail(changes, StoreUnavailable("following all commands", "no thread could be started for it"))
                raise
        return watcher

    def close(self) -> None:
        """End every watch. Idempotent."""
        with self._lock:
            watchers, self._watchers = self._watchers, ()
            changes, self._changes = self._changes, None
        if changes is not None:
            changes.close()
        for watcher in watchers:
            watcher.end(None)

    def _leave(self, watcher: Watcher) -> None:
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each is not watcher)
            if self._watchers:
                return
            changes, self._changes = self._changes, None
        if changes is not None:
            changes.close()

    def _read(self, changes: Changes) -> None:
        try:
            while self._changes is changes:
                change = changes.get(_LOOK_SECONDS)
                if change is not None:
                    for watcher in self._watchers:
                        watcher.put(change)
        except LightLinkError as exc:
            self._fail(changes, exc)

    def _fail(self, changes: Changes, error: LightLinkError) -> None:
        with self._lock:
            if self._changes is not changes:
                return  # nobody watches by it any more
            watchers, self._watchers = self._watchers, ()
            self._changes = None
        changes.close()
        for watcher in watchers:
            watcher.end(error)
