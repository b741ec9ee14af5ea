"""An old threaded daemon that learned to talk: double fork, PID file, select loop, SIGHUP and SIGTERM as ever.

python samples/legacy_daemon.py [URL]

It starts the daemon, talks to it, tells it to read its settings again, and ends it. Of a daemon's own code only `serve`
is new: nothing of it is asyncio, and its main loop is the one that it always had.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _server import nats_url

import lightlink

WAIT_SECONDS = 30.0


class Daemon:
    """Reads a gauge, as it did for years."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}
        self.signals: list[int] = []
        self.is_running = True

    def serve(self, url: str) -> None:
        """Run the main loop, which sleeps in select until a signal or a message comes."""
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self.signals.append(number))
        self.read_settings()
        # Connects here, after the forks. A library that had connected before them would be as good: a child makes a
        # connection of its own.
        with lightlink.connect(url, name="legacy", wait=WAIT_SECONDS) as client:
            service = lightlink.Service("gauge", client, workers=1)
            service.register("read", lambda: self.settings["value"])
            orders = client.subscribe("gauge.orders")
            service.start()
            (self.folder / "daemon.pid").write_text(str(os.getpid()))
            while self.is_running:
                waiting: list[Any] = [wake, orders]
                readable, _, _ = select.select(waiting, [], [], 60)
                if wake in readable:
                    os.read(wake, 64)
                    self.heed_signals()
                if orders in readable:
                    self.log(f"order: {orders.get(timeout=0).data}")
            service.stop()
        self.log("ended")
        (self.folder / "daemon.pid").unlink()

    def read_settings(self) -> None:
        """Read the settings, at the start and at each SIGHUP."""
        self.settings = json.loads((self.folder / "settings.json").read_text())
        self.log(f"settings: {self.settings}")

    def heed_signals(self) -> None:
        """Do what signals ask for, outside of their handlers."""
        while self.signals:
            if self.signals.pop(0) == signal.SIGHUP:
                self.read_settings()
            else:
                self.is_running = False

    def log(self, line: str) -> None:
        """Write a line into the daemon's own log."""
        with (self.folder / "daemon.log").open("a") as file:
            file.write(line + "\n")


def daemonize(folder: Path, url: str) -> None:
    """Fork twice, as daemons do, and serve in the grandchild; returns in the process that it was called from."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    status = 1
    try:
        Daemon(folder).serve(url)
        status = 0
    finally:
        os._exit(status)


def wait_for(check: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError("the daemon does not do what it should")
        time.sleep(0.02)


def main() -> None:
    """Start the daemon, talk to it, and end it."""
    with nats_url() as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, pid_file, log = folder / "settings.json", folder / "daemon.pid", folder / "daemon.log"
        settings.write_text('{"value": 21.5}')
        daemonize(folder, url)
        wait_for(pid_file.exists)
        pid = int(pid_file.read_text())
        with lightlink.connect(url) as client:
            client.wait_for("gauge", "read", timeout=WAIT_SECONDS)
            print("gauge.read:", client.call("gauge", "read"))
            client.publish("gauge.orders", "open the valve")
            wait_for(lambda: "order" in log.read_text())
            settings.write_text('{"value": 22.0}')
            os.kill(pid, signal.SIGHUP)
            wait_for(lambda: client.call("gauge", "read") == 22.0)
            print("after SIGHUP:", client.call("gauge", "read"))
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not pid_file.exists())
        print(log.read_text(), end="")


if __name__ == "__main__":
    main()
