"""Who calls while the same client uploads."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from typing import Any

import lightlink
from tests.benchmarks.actors import timing
from tests.benchmarks.actors.links import connect
from tests.benchmarks.payload import VALUE

_TIMEOUT = 30.0
_LOOK, _PAUSE = 0.5, 0.005
_BLOCK = os.urandom(1024 * 1024)
# So much is read from the file before calls are timed: the upload is in full swing.
_ON_ITS_WAY = 4


class _Ended(Exception):
    """The upload is over: enough calls were timed."""


class _Endless(io.RawIOBase):
    """A file that goes on until it is told to end, and then fails: what is on its way over a bad link takes long."""

    def __init__(self) -> None:
        self.ended = False
        self.in_full_swing = threading.Event()
        self._reads = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _ON_ITS_WAY:
            self.in_full_swing.set()
        if self.ended:
            raise _Ended
        return _BLOCK[: size if size >= 0 else len(_BLOCK)]


class Ours:
    """One client; calls the plain echo, alone or beside an upload. ``bulk`` gives files a connection of their own."""

    def __init__(self, url: str, tls: str | None = None, bulk: bool | None = None) -> None:
        self._client = connect(url, tls, timeout=_TIMEOUT, **({} if bulk is None else {"bulk_connection": bulk}))

    def times(self, count: int) -> dict[str, Any]:
        return timing.times(self._call, count)

    def rate(self, callers: int, seconds: float) -> dict[str, Any]:
        return timing.rate(lambda _: self._call, callers, seconds)

    def times_beside_upload(self, count: int) -> dict[str, Any]:
        """Time calls while a file is uploaded."""
        source = _Endless()

        def upload() -> None:
            with contextlib.suppress(_Ended):
                self._client.upload(source, name="endless")

        thread = threading.Thread(target=upload)
        thread.start()
        try:
            assert source.in_full_swing.wait(_TIMEOUT), "the upload does not begin"
            return timing.times(self._call, count)
        finally:
            source.ended = True
            thread.join()

    def reach(self) -> None:
        """Return when the server answers; it may be away."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                self._client.flush(timeout=_LOOK)
                return
            except lightlink.LightLinkError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def _call(self) -> None:
        assert self._client.call("plain", "echo", VALUE, timeout=_TIMEOUT)["n"] == VALUE["n"]
