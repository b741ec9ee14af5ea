"""At home under systemd: what it is told while a program runs (sd_notify), and units that have it run one.

::

    from lightlink.contrib import systemd

    systemd.run(service, on_reload=read_settings)
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from lightlink.concurrency.scheduler import every
from lightlink.contrib.serving import serve
from lightlink.errors import InvalidOption
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lightlink.client import Client
    from lightlink.contrib.serving import Runnable

_log = logging.getLogger("lightlink")

_UNIT = """\
# Made by LightLink; `systemctl edit` adds to it.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
Type={type}
NotifyAccess=main
WorkingDirectory={folder}
ExecStart={command}
{environment}# A server that is not there yet is waited for.
TimeoutStartSec=infinity
Restart=always
RestartSec=5
WatchdogSec=60
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
{writable}ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy={target}
"""


# While it runs -------------------------------------------------------------------------------------------------------


def notify(*words: str) -> None:
    """Tell systemd something of this process (sd_notify(3)); without effect where nothing listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    where = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(where)
            out.sendall("\n".join(words).encode())
    except OSError as exc:
        _log.debug("lightlink: systemd was not told %s: %s", words, exc)


def watchdog_seconds() -> float | None:
    """Return how often systemd wants a sign of life from this process, None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdecimal() and int(text) else None


def keep_alive(*clients: Client) -> Callable[[], None]:
    """Tell systemd that this process lives, as often as it wants to hear that; returns what ends it.

    Only while the threads of all clients answer: a process with a loop that hangs is started again. A server that is
    away is no reason: starting again would not bring it back.
    """
    interval = watchdog_seconds()
    if interval is None:
        return lambda: None

    def beat() -> None:
        if all(client.is_responsive(interval) for client in clients):
            notify("WATCHDOG=1")

    beating = every(interval, beat)
    return lambda: beating.stop(0.0)


def announce(clients: Sequence[Client], status: Callable[[], str]) -> Callable[[], None]:
    """Tell systemd that this process is ready, its status at each change of a connection, and that it lives.

    Returns what ends the signs of life.
    """
    for client in clients:
        client.on_status_change(lambda _: notify(f"STATUS={status()}"))
    end = keep_alive(*clients)
    # Last: from then on no change may be missed.
    notify("READY=1", f"STATUS={status()}")
    return end


def run(*runnables: Runnable, on_reload: Callable[[], object] | None = None, drain_timeout: float = 10.0) -> None:
    """Run services and agents until SIGTERM or Ctrl-C, and tell systemd how they are; without systemd just run them.

    It hears READY when all run, STATUS at each change of their connections, WATCHDOG while their threads answer, and
    STOPPING when the drain of at most ``drain_timeout`` seconds begins. At SIGHUP (``systemctl reload``, with
    ``Type=notify-reload``) ``on_reload`` is called, between RELOADING and READY; what it raises is logged. Raises the
    first error that one of them ended with.
    """
    seconds("drain_timeout", drain_timeout)
    if not runnables:
        raise InvalidOption("runnables", "name at least one service or agent")
    enders: list[Callable[[], None]] = []

    def ready() -> None:
        enders.append(announce([each.client for each in runnables], partial(_status_of, runnables)))

    def reload() -> None:
        # The instant is part of the protocol: sd_notify(3).
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            if on_reload is not None:
                on_reload()
        except Exception:
            _log.exception("lightlink: the reload failed; it goes on as before")
        notify("READY=1")

    try:
        serve(
            runnables,
            drain_timeout,
            on_ready=ready,
            on_stopping=lambda: notify("STOPPING=1"),
            on_hangup=None if on_reload is None else reload,
        )
    finally:
        for end in enders:
            end()


def _status_of(runnables: Sequence[Runnable]) -> str:
    return ", ".join(f"{each!r} {each.client.status.value}" for each in runnables)


# Units ---------------------------------------------------------------------------------------------------------------


def unit(
    description: str,
    command: Sequence[str],
    folder: Path,
    writable: Path | None = None,
    *,
    environment_file: Path | None = None,
    reloads: bool = False,
    user: bool = False,
) -> str:
    """Return a hardened unit that runs a command in a folder, at boot or, with ``user``, when that user logs in.

    It may write below ``writable`` only. ``environment_file`` holds lines such as ``LIGHTLINK_URL=...``, and may hold
    secrets. ``reloads`` is for a program that uses `run` with ``on_reload`` (systemd 253 or later). Raises
    InvalidOption for a control character, which would begin another line, and for a description that ends in a
    backslash, which would join the next one.
    """
    # Systemd looks for variables in the arguments, and not in the program's path.
    words = [*map(_quoted, command[:1]), *(_quoted(word).replace("$", "$$") for word in command[1:])]
    return _UNIT.format(
        description=_title(description),
        command=" ".join(words),
        folder=_path(str(folder)),
        type="notify-reload" if reloads else "notify",
        environment="" if environment_file is None else f"EnvironmentFile={_path(_unglobbed(environment_file))}\n",
        writable="" if writable is None else f"ReadWritePaths={_quoted(str(writable))}\n",
        target="default.target" if user else "multi-user.target",
    )


def _plain(text: str) -> str:
    if not text.isprintable():
        raise InvalidOption("unit", "cannot hold a control character", text)
    return text.replace("%", "%%")


def _title(text: str) -> str:
    # An even number of backslashes joins no lines: each second one is escaped. All are shown.
    if (len(text) - len(text.rstrip("\\"))) % 2:
        raise InvalidOption("description", "cannot end in a backslash, which would join the next line", text)
    return _plain(text)


def _path(text: str) -> str:
    """Return a path as a setting without quotes holds it, where a blank or a backslash at the end would be lost."""
    return _plain(text + "/" if text.endswith((" ", "\\")) else text)


def _unglobbed(path: Path) -> str:
    """Return a pattern that matches a path alone (glob(7))."""
    return re.sub(r"[*?\[\\]", r"\\\g<0>", str(path))


def _quoted(text: str) -> str:
    """Return a word as systemd.syntax(7) reads it: neither a specifier nor several words."""
    return '"' + _plain(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
