"""The lifecycle of a gateway: start, run until a signal arrives, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from lightlink.certs.check import check_server_files
from lightlink.certs.files import PRIVATE, read_file, write_file
from lightlink.concurrency.lifecycle import Lifecycle, Stage
from lightlink.concurrency.loop import LoopThread
from lightlink.errors import ClosedError, InvalidOption, LinkError, NotReady
from lightlink.gateway.counts import Counts
from lightlink.gateway.options import host_and_port
from lightlink.gateway.packets import Secrets
from lightlink.protocol.edge import EdgeCode

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from lightlink.connection.transports.udp import UdpSocket
    from lightlink.gateway.door import Door
    from lightlink.gateway.options import GatewayOptions

_log = logging.getLogger("lightlink.gateway")

_KEY_BYTES = 32
_START_SECONDS = 10.0
_LOOK_SECONDS = 0.01


class Gateway(Lifecycle):
    """Forward NATS connections from QUIC to a nats-server; holds no credentials and inspects nothing.

    ``with Gateway(GatewayOptions(cert=..., key=...)): ...``, or ``start()`` and ``stop()``, or ``run()``. A port
    belongs to one process; several gateways can share one DNS name.
    """

    def __init__(self, options: GatewayOptions) -> None:
        super().__init__()
        self.options = options
        self.counts = Counts()
        self._loop = LoopThread("gateway")
        self._udp: UdpSocket
        self._door: Door
        self._port = 0

    @property
    def address(self) -> tuple[str, int]:
        """The host and port it listens on."""
        host, port = host_and_port("listen", self.options.listen)
        return host, self._port or port

    @property
    def is_running(self) -> bool:
        """Whether it accepts connections."""
        return self.stage is Stage.RUNNING

    def start(self) -> Self:
        """Listen; raises InvalidOption for unusable files or addresses, LinkError when the address cannot be bound.

        Raises NotReady after the first start.
        """
        if self.stage is not Stage.NEW:
            raise NotReady("the gateway", f"is {self.stage.value} already")
        try:
            import qh3  # noqa: F401, PLC0415 - may be missing
        except ModuleNotFoundError as exc:
            raise InvalidOption("gateway", f"needs the extra: pip install 'lightlink[quic]' ({exc})") from exc
        check_server_files(self.options.cert, self.options.key)
        key = os.urandom(_KEY_BYTES) if self.options.reset_key is None else _read_or_make_key(self.options.reset_key)
        self._loop.start()
        try:
            self._loop.run(self._listen, Secrets(key), timeout=_START_SECONDS)
        except BaseException:
            self._loop.stop(1.0)
            raise
        self._stage, self._pid = Stage.RUNNING, os.getpid()
        _log.info("lightlink: gateway on %s:%d", *self.address)
        return self

    def run(self, drain_timeout: float = 5.0) -> None:
        """Start unless running, serve until SIGINT, SIGTERM or `stop`, then drain within ``drain_timeout`` seconds."""
        super().run(drain_timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """Accept no more connections, forward what is in flight, close all connections within ``timeout`` seconds.

        Idempotent.
        """
        self._stop_signal.set()
        if self.stage is not Stage.RUNNING:
            return
        self._stop_by(self._end, timeout)

    def _end(self, timeout: float) -> None:
        try:
            self._loop.run(self._drain, timeout, timeout=timeout + 1.0)
        except TimeoutError:
            _log.warning("lightlink: the gateway did not close its connections within %g s", timeout)
        except ClosedError:
            pass  # the loop has ended with a stop that Ctrl-C has cut short
        self._loop.stop(1.0)

    # On the loop's thread -------------------------------------------------------------------------------------------

    async def _listen(self, secrets: Secrets) -> None:
        from lightlink.connection.transports.udp import UdpSocket  # noqa: PLC0415 - needs the extra
        from lightlink.gateway.door import Door  # noqa: PLC0415

        family, local = _resolve(self.options.listen)
        # No datagram can arrive before the door is set: there is no await in between.
        try:
            self._udp = await UdpSocket.open(local, family, self._receive)
        except OSError as exc:
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise LinkError(f"listening on {self.options.listen} (UDP)", reason) from exc
        self._door = Door(self.options, self.counts, secrets, self._udp.send)
        self._port = self._udp.socket.getsockname()[1]

    def _receive(self, datagrams: list[bytes], address: Any) -> None:
        self._door.receive(datagrams, address)

    async def _drain(self, timeout: float) -> None:
        self._door.is_closing = True
        deadline = asyncio.get_running_loop().time() + timeout / 2
        while any(self._waiting()) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        for connection in self._door.connections:
            connection.close(EdgeCode.SHUTTING_DOWN, "shutting down")
        await asyncio.sleep(_LOOK_SECONDS)  # the upstream connections close in the next iterations of the event loop
        self._udp.close()
        await asyncio.sleep(_LOOK_SECONDS)

    def _waiting(self) -> list[int]:
        streams = [stream for connection in self._door.connections for stream in connection.streams.values()]
        return [stream.get_write_buffer_size() for stream in streams]


def _resolve(listen: str) -> tuple[int, Any]:
    host, port = host_and_port("listen", listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise InvalidOption("listen", f"cannot be resolved: {exc.strerror}", listen) from exc
    return found[0][0], found[0][4]


def _read_or_make_key(path: Path) -> bytes:
    if not path.exists():
        write_file(path, os.urandom(_KEY_BYTES), mode=PRIVATE, replace=False)
    key = read_file("reset_key", path, secret=True)
    if len(key) < _KEY_BYTES:
        raise InvalidOption("reset_key", f"must hold at least {_KEY_BYTES} bytes, got {len(key)}", str(path))
    return key
