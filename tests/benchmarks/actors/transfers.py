"""Those who move files in and out of an object store."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.actors.links import connect, connect_raw
from tests.benchmarks.actors.memory import forget_peak, peak_mib, resident_mib

if TYPE_CHECKING:
    from collections.abc import Callable


class _Mover:
    """Moves one file; what it holds in the store is the last it put there."""

    def upload(self, path: str) -> float:
        """Store a file, and return how many seconds that took."""
        return _seconds(lambda: self._put(path))

    def download(self, target: str) -> float:
        """Fetch the file stored last, and return how many seconds that took."""
        seconds = _seconds(lambda: self._get(target))
        Path(target).unlink()
        return seconds

    def upload_peak(self, path: str) -> float:
        """Store a file, and return how much more memory than before that took at most, in MiB."""
        return _peak(lambda: self._put(path))

    def download_peak(self, target: str) -> float:
        """Fetch the file stored last, and return the same."""
        peak = _peak(lambda: self._get(target))
        Path(target).unlink()
        return peak

    def _put(self, path: str) -> None:
        raise NotImplementedError

    def _get(self, target: str) -> None:
        raise NotImplementedError

    def discard(self) -> None:
        """Remove the file from the store."""
        raise NotImplementedError


class Ours(_Mover):
    """`Client.upload` and `Client.download`."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._client = connect(url, tls)
        self._id = ""

    def _put(self, path: str) -> None:
        self._id = self._client.upload(path).id

    def _get(self, target: str) -> None:
        self._client.download(self._id, target)

    def discard(self) -> None:
        self._client.delete_file(self._id)


class Asyncio(_Mover):
    """nats-py's object store: `put` a file object, `get(writeinto=)`."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._run(self._open(url, tls))

    async def _open(self, url: str, tls: str | None) -> None:
        nc = await connect_raw(url, tls)
        self._store = await nc.jetstream().create_object_store("bench_files")

    def _put(self, path: str) -> None:
        with Path(path).open("rb") as source:
            self._run(self._store.put("file", source))

    def _get(self, target: str) -> None:
        with Path(target).open("wb") as file:
            self._run(self._store.get("file", writeinto=file))

    def discard(self) -> None:
        self._run(self._store.delete("file"))

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _peak(act: Callable[[], object]) -> float:
    idle = resident_mib()
    forget_peak()
    act()
    return peak_mib() - idle
