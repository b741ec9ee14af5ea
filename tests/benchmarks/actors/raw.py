"""The other end of a measurement, as cheap as it can be: plain sockets that speak just enough of NATS.

`Echo` answers whoever calls, so that callers are what is measured; `Load` asks as fast as it is answered, so that
services are what is measured. Both are the same for all sides.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tests.benchmarks.actors.links import connect_socket
from tests.benchmarks.payload import ENCODED, MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 256 * 1024
_PATIENCE_SECONDS = 5.0


class Echo:
    """Answers calls of ``$SRV.plain.echo`` as a LightLink service would, and requests on ``plain.echo`` as they are."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._socket = connect_socket(url, tls)
        self._socket.sendall(b"SUB plain.echo 1\r\nSUB $SRV.plain.* 2\r\nPING\r\n")
        self._listening = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()
        if not self._listening.wait(_PATIENCE_SECONDS):
            raise TimeoutError("the server does not answer")

    def _work(self) -> None:
        held = b""
        while chunk := self._socket.recv(_CHUNK):
            held += chunk
            answers: list[bytes] = []
            used = 0
            for reply, body, used in self._messages(held):  # noqa: B007 - where the last one ends is used below
                answers.append(b"PUB %b %d\r\n%b\r\n" % (reply, len(body), body) if reply else body)
            held = held[used:]
            if answers:
                self._socket.sendall(b"".join(answers))

    def _messages(self, held: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield (reply subject, body of the answer, where it ends), or a protocol answer with no reply subject."""
        at = 0
        while (end := held.find(b"\r\n", at)) >= 0:
            words = held[at:end].split(b" ")
            if words[0] not in (b"MSG", b"HMSG"):
                at = end + 2
                if words[0] == b"PING":
                    yield b"", b"PONG\r\n", at
                else:
                    self._listening.set()
                    yield b"", b"", at
                continue
            start, size = end + 2, int(words[-1])
            at = start + size + 2
            if len(held) < at:
                return
            if words[0] == b"HMSG":
                start += int(words[-2])
            body = held[start : at - 2]
            yield words[3], body if words[2] == b"1" else _success(body), at


def _success(request: bytes) -> bytes:
    """Return the envelope that answers ``{"id":"<36 characters>","method":"echo","args":{...}}``."""
    return b'{"id":"%b","result":%b,"success":true}' % (request[7:43], request[request.find(b'"args":') + 7 : -1])


class Load:
    """Keeps a fixed number of requests in flight, and counts the good replies."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._socket = connect_socket(url, tls)
        self._socket.sendall(b"SUB _INBOX.load 1\r\n")
        self._socket.settimeout(_PATIENCE_SECONDS)

    def enveloped(self, service: str, seconds: float, in_flight: int) -> float:
        """Return the requests per second that a LightLink service answers."""
        body = b'{"id":"00000000-0000-4000-8000-000000000000","method":"echo","args":%b}' % ENCODED
        return self._load(f"$SRV.{service}.echo".encode(), body, seconds, in_flight)

    def plain(self, subject: str, seconds: float, in_flight: int) -> float:
        """Return the requests per second that are answered on a subject."""
        return self._load(subject.encode(), ENCODED, seconds, in_flight)

    def spray(self, prefix: str, subjects: int, messages: int) -> None:
        """Publish messages on ``<prefix>.0`` and so on, in turn."""
        frames = [b"PUB %b.%d %d\r\n%b\r\n" % (prefix.encode(), n, len(ENCODED), ENCODED) for n in range(subjects)]
        rest = messages
        while rest > 0:
            burst = frames * max(1, 500 // subjects)
            self._socket.sendall(b"".join(burst[:rest]))
            rest -= len(burst)

    def _load(self, subject: bytes, body: bytes, seconds: float, in_flight: int) -> float:
        frame = b"PUB %b _INBOX.load %d\r\n%b\r\n" % (subject, len(body), body)
        answered = 0
        self._socket.sendall(frame * in_flight)
        started = time.perf_counter()
        end = started + seconds
        tail = b""
        while time.perf_counter() < end:
            good, tail = self._receive(tail)
            answered += good
            self._socket.sendall(frame * good)
        elapsed = time.perf_counter() - started
        missing = in_flight
        while missing > 0:
            good, tail = self._receive(tail)
            missing -= good
        return answered / elapsed

    def _receive(self, tail: bytes) -> tuple[int, bytes]:
        """Return how many good replies came, and the bytes in which the next may have begun."""
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise ConnectionError("the server hung up")
        if b"PING\r\n" in chunk:
            self._socket.sendall(b"PONG\r\n")
        held = tail + chunk
        good = held.count(MARK)
        if not good and b"rror" in held:
            raise RuntimeError(f"refused: {held[:160]!r}")
        return good, held[max(held.rfind(MARK) + len(MARK), len(held) - len(MARK) + 1) :]
