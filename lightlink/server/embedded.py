"""Start, reach and stop a nats-server of one's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import InvalidOption, NotReady, ServerError
from lightlink.protocol.text import joined
from lightlink.server.binary import find_server
from lightlink.server.process import WatchedProcess
from lightlink.validators import field, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

# Of a configuration: a comment, which may stand behind a setting, and the folder of JetStream.
_COMMENT = re.compile(r"(^|\s)(#|//)[^\n]*")
_STORE_DIR = re.compile(
    r"(?:\bstore_dir|(?:^|[{;,])\s*[\"']?store(?:dir)?)[\"']?\s*[:=\s]\s*(\"[^\"]+\"|'[^']+'|[^\s,;}\"']+)",
    re.IGNORECASE | re.MULTILINE,
)
_LOG_LINES = 10
_POLL_INTERVAL = 0.005
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - clients cannot connect to "every address"


def store_in(configuration: str) -> Path | None:
    """Return the folder of JetStream that the text of a configuration names, None where it names none."""
    found = _STORE_DIR.search(_COMMENT.sub("", configuration))
    return None if found is None else Path(found[1].strip("\"'"))


def _check_port(_server: object, _attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise InvalidOption("port", "must be between 0 (any free port) and 65535", value)


def _optional_path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value).absolute()


@attrs.define(eq=False, repr=False, kw_only=True)
class EmbeddedServer:
    """Run a real nats-server that ends with this Python process, however that ends.

    ``with EmbeddedServer() as server: lightlink.connect(server.url)``, or ``start()`` and ``stop()``. The port is
    found at the first start and kept, so clients find the server again after ``kill(); start()``. Any thread may read
    it; one at a time may operate it. A process forked from this one knows its address but leaves it alone.

    Arguments: ``port``, 0 for a free one; ``host`` to listen on; ``store_dir``, JetStream's folder, kept (default: a
    temporary one, removed by ``stop``); ``config``, nats-server configuration, a str with its text or a Path of its
    file, over which the other arguments win; ``tls``, a certificate directory (`lightlink.certs`), for mutual TLS and
    the identities that are in it at the start; ``name``, the server's name; ``log_file``, appended to (default: a
    temporary one); ``extra_args`` for the command; ``ready_timeout`` in seconds. The server must send its INFO first:
    TLS ``handshake_first`` is not supported.
    """

    _port: int = attrs.field(default=0, validator=_check_port)
    host: str = "127.0.0.1"
    _store_dir: Path | None = attrs.field(default=None, converter=_optional_path)
    config: str | os.PathLike[str] | None = None
    tls: Path | None = attrs.field(default=None, converter=_optional_path)
    jetstream: bool = True
    name: str | None = None
    _log_file: Path | None = attrs.field(default=None, converter=_optional_path)
    extra_args: Sequence[str] = ()
    ready_timeout: float = attrs.field(default=10.0, validator=field(seconds))
    _temporary: Path | None = attrs.field(default=None, init=False)
    _process: WatchedProcess | None = attrs.field(default=None, init=False)
    _finalizer: Any = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.tls is None:
            return
        if self.config is not None:
            raise InvalidOption("tls", "does not go with config: it makes a configuration itself", str(self.tls))
        if not self.jetstream:
            raise InvalidOption("jetstream", "cannot be turned off with tls", self.jetstream)

    @property
    def port(self) -> int:
        """The port for clients; NotReady while it is 0 and the server was not started."""
        if not self._port:
            raise NotReady("the embedded server", "has no address before it is started")
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect, such as ``nats://127.0.0.1:4222``, with ``tls`` tls://; NotReady like ``port``."""
        return f"{'nats' if self.tls is None else 'tls'}://{joined(self._address, self.port)}"

    @property
    def running(self) -> bool:
        """Whether the nats-server lives; always False in a process forked from its owner."""
        process = self._process
        return process is not None and process.owned and process.exit_status() is None

    @property
    def pid(self) -> int:
        """The process id of the nats-server; NotReady while it does not run."""
        process = self._process
        if process is None or not self.running:
            raise NotReady("the embedded server", "does not run")
        return process.pid

    @property
    def store_dir(self) -> Path:
        """The folder of JetStream's data; NotReady while it would be a temporary one and there is none."""
        return self._store_dir or self._configured_store() or self._folder / "store"

    @property
    def log_file(self) -> Path:
        """The server's own log; NotReady while it would be a temporary one and there is none."""
        return self._log_file or self._folder / "server.log"

    def start(self) -> Self:
        """Start the server and wait until it takes clients. Does nothing if it runs.

        Raises ServerError, with the end of the server's log, if it is not ready within ``ready_timeout`` seconds, and
        InvalidOption for a certificate directory that is not fit.
        """
        self._check_owner()
        if self.running:
            return self
        binary = find_server()
        fresh = self._temporary is None
        folder = self._temporary or Path(tempfile.mkdtemp(prefix="lightlink-server-"))
        self._temporary = folder
        try:
            self._port = self._launch(binary, folder)
        except BaseException:
            if fresh or not folder.exists():
                self.stop()
            else:
                self.kill()  # a start after kill() keeps the data even if it fails
            raise
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """Let the server shut down, kill it after ``timeout`` seconds, remove its temporary files. Idempotent."""
        if self._temporary is None or not self._owned:
            return
        _discard(self._process, self._temporary, timeout)
        self._process = self._temporary = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def kill(self) -> None:
        """Kill the server as a crash would; its data stays for the next ``start``. Does nothing if it does not run."""
        self._check_owner()
        if self._process is not None:
            self._process.end(signal.SIGKILL, timeout=0)

    def restart(self, timeout: float = 5.0) -> None:
        """Let the server shut down, kill it after ``timeout`` seconds, start it again with its port and data."""
        self._check_owner()
        if self._process is not None:
            self._process.end(signal.SIGTERM, timeout)
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        address = joined(self._address, self._port) if self._port else self._address
        return f"<EmbeddedServer {address} {'running' if self.running else 'not running'}>"

    @property
    def _address(self) -> str:
        return _LOOPBACK.get(self.host, self.host)

    @property
    def _folder(self) -> Path:
        if self._temporary is None:
            raise NotReady("the embedded server", "has no temporary files before start and after stop")
        return self._temporary

    @property
    def _owned(self) -> bool:
        return self._process is None or self._process.owned

    def _check_owner(self) -> None:
        if not self._owned:
            raise NotReady("the embedded server", "belongs to the process from which this one was forked")

    def _launch(self, binary: Path, folder: Path) -> int:
        try:
            process = WatchedProcess(self._command(binary, folder), self.log_file, folder)
        except OSError as exc:
            raise ServerError(f"nats-server could not be started: {exc}") from exc
        self._process = process
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _discard, process, folder)
        deadline = Deadline(self.ready_timeout)
        while (status := process.exit_status()) is None:
            port = _published_port(folder, process.pid)
            if port is not None:
                self._await_info(port, deadline)
                return port
            if deadline.is_over:
                raise self._failure(f"was not ready within {self.ready_timeout:g} s")
            time.sleep(_POLL_INTERVAL)
        raise self._failure(f"ended with status {status} while starting")

    def _command(self, binary: Path, folder: Path) -> list[str | Path]:
        command: list[str | Path] = [binary, "-a", self.host, "-p", str(self._port or -1), "--ports_file_dir", folder]
        if self.jetstream:
            command.append("-js")
            # The server refuses to be told of two, and one that its configuration names is the user's choice.
            command += [] if self._configured_store() else ["-sd", self.store_dir]
        if self.name is not None:
            command += ["--name", self.name]
        config = self.config if self.tls is None else _tls_config(self.tls)
        if isinstance(config, str):
            file = folder / "server.conf"
            file.write_text(config)
            command += ["-c", file]
        elif config is not None:
            command += ["-c", Path(config)]
        return [*command, *self.extra_args]

    def _configured_store(self) -> Path | None:
        """Return the folder that the configuration names for JetStream; raises InvalidOption where an argument does."""
        if self.config is None:
            return None
        text = self.config if isinstance(self.config, str) else Path(self.config).read_text(errors="replace")
        found = store_in(text)
        if found is not None and self._store_dir is not None:
            raise InvalidOption("store_dir", "is named by the configuration as well; leave one out", self._store_dir)
        return found

    def _await_info(self, port: int, deadline: Deadline) -> None:
        """Check that a client is greeted, with TLS or without: INFO comes before the handshake.

        The server's end of the check is awaited too: one still counted could keep the first client out where
        ``max_connections`` is small.
        """
        remaining = deadline.remaining(_POLL_INTERVAL)
        try:
            with socket.create_connection((self._address, port), remaining) as client, client.makefile("rb") as lines:
                greeting = lines.readline(65536)
                client.shutdown(socket.SHUT_WR)
                lines.read(65536)
        except OSError as exc:
            raise self._failure(f"does not greet clients: {exc}") from exc
        if not greeting.startswith(b"INFO "):
            raise self._failure(f"greets clients with {greeting[:40]!r}")

    def _failure(self, reason: str) -> ServerError:
        lines = self.log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:] or ["its log is empty"]
        return ServerError("\n".join([f"nats-server {reason}: {lines[-1]}", "The end of its log:", *lines]))


def _tls_config(certificates: Path) -> str:
    from lightlink.certs import server_config  # noqa: PLC0415 - cryptography takes long to import

    return server_config(certificates, store_dir=None)


def _published_port(folder: Path, pid: int) -> int | None:
    """Read the port from the file that the server writes once it listens; None while it is absent or incomplete."""
    file = next(folder.glob(f"*_{pid}.ports"), None)
    if file is None:
        return None
    try:
        address: str = json.loads(file.read_bytes())["nats"][0]
    except ValueError:
        return None
    return urlsplit(address).port


def _discard(process: WatchedProcess | None, folder: Path, timeout: float = 5.0) -> None:
    if process is not None:
        if not process.owned:
            return
        process.end(signal.SIGTERM, timeout)
    if folder.exists():  # its watchdog removes it if it could not be started
        shutil.rmtree(folder)
