"""Everything at once, for minutes, under faults that come as the dice fall: ``make soak MINUTES=5``.

In the end the books of `chaos.ledger` are printed, with what memory, threads and descriptors came to. The exit status
is 1 when the books do not balance, something did not go on after a fault, or a thread or descriptor is left over.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from helpers.proxy import TcpProxy
from helpers.waiting import eventually

import lightlink
from chaos.command_load import CommandLoad
from chaos.forks import call_in_child
from chaos.ledger import Ledger
from chaos.load import MixedLoad
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# The shortest that nats-server takes; it begins to cut its clients off after the grace period, one a second.
_LAME_DUCK = 'lame_duck_grace_period: "0.2s", lame_duck_duration: "30s"'
# What the network holds back longer than a caller waits may still be run afterwards (docs/faults.md), so it must not.
_MOST_HELD = 0.4
_GO_ON = 60.0


@attrs.frozen
class Resources:
    """What a process uses: resident memory in MB, threads, descriptors, and objects of the library's classes.

    ``blocks`` counts the pieces of memory that are in use; what was freed may be too scattered to be given back.
    """

    memory: float
    blocks: int
    threads: int
    descriptors: int
    objects: int

    @classmethod
    def now(cls) -> Resources:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # it is glibc that keeps what was freed
            ctypes.CDLL(None).malloc_trim(0)
        ours = sum(str(type(each).__module__).startswith("lightlink.") for each in gc.get_objects())
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            sys.getallocatedblocks(),
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            ours,
        )

    def __str__(self) -> str:
        return (
            f"memory {self.memory:.0f} MB in {self.blocks} blocks, threads {self.threads}, "
            f"descriptors {self.descriptors}, objects of the library {self.objects}"
        )


class Faults:
    """What can go wrong with a server and the two lines to it. Each fault is over when its method returns."""

    def __init__(self, dice: random.Random, server: EmbeddedServer, lines: Sequence[TcpProxy], load: MixedLoad) -> None:
        self._dice = dice
        self._server = server
        self._lines = lines
        self._load = load
        self.happened: collections.Counter[str] = collections.Counter()

    def strike(self) -> str:
        """Let one of them happen; returns what it was."""
        fault = self._dice.choice(
            [
                self.server_killed,
                self.server_taken_out_of_service,
                self.server_frozen,
                self.connections_cut,
                self.connections_half_open,
                self.line_refuses,
                self.line_slow,
                self.line_hangs,
                self.fork,
                self.burst,
            ]
        )
        self.happened[fault.__name__.replace("_", " ")] += 1
        return f"{fault.__name__.replace('_', ' ')}{fault()}"

    def server_killed(self) -> str:
        seconds = self._dice.choice([0.0, self._dice.uniform(0.0, 5.0)])
        self._server.kill()
        time.sleep(seconds)
        self._server.start()
        return f", gone for {seconds:.1f} s"

    def server_taken_out_of_service(self) -> str:
        os.kill(self._server.pid, signal.SIGUSR2)
        eventually(lambda: not self._server.running, timeout=_GO_ON)
        self._server.start()
        return ""

    def server_frozen(self) -> str:
        os.kill(self._server.pid, signal.SIGSTOP)
        seconds = self._hold()
        os.kill(self._server.pid, signal.SIGCONT)
        return f" for {seconds:.1f} s"

    def connections_cut(self) -> str:
        times = self._dice.randint(1, 5)
        for _ in range(times):
            self._line().cut()
            time.sleep(self._dice.uniform(0.0, 0.2))
        return f", {times} times"

    def connections_half_open(self) -> str:
        self._line().half_open()
        return ""

    def line_refuses(self) -> str:
        line, seconds = self._line(), self._dice.uniform(0.0, 3.0)
        line.refuse()
        line.cut()
        time.sleep(seconds)
        line.accept()
        return f" for {seconds:.1f} s"

    def line_slow(self) -> str:
        line, delay = self._line(), self._dice.uniform(0.005, 0.1)
        line.delay(delay)
        time.sleep(self._dice.uniform(0.5, 3.0))
        line.delay(0.0)
        return f" by {1000 * delay:.0f} ms"

    def line_hangs(self) -> str:
        line = self._line()
        line.pause()
        seconds = self._hold()
        line.resume()
        return f" for {seconds:.1f} s"

    def fork(self) -> str:
        call_in_child(self._load.calls, self._load.call_with, times=10)
        return ""

    def burst(self) -> str:
        futures = [self._load.calls.submit(self._load.submit_with) for _ in range(300)]
        for future in futures:
            future.exception(30)
        return ""

    def _line(self) -> TcpProxy:
        return self._dice.choice(self._lines)

    def _hold(self) -> float:
        seconds = self._dice.uniform(0.05, _MOST_HELD)
        time.sleep(seconds)
        return seconds


@contextlib.contextmanager
def everything(dice: random.Random, ledger: Ledger) -> Iterator[tuple[MixedLoad, CommandLoad, Faults]]:
    """Start a server with two lines to it, and all kinds of load."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(config=_LAME_DUCK))
        target = urlsplit(server.url)
        lines = [stack.enter_context(TcpProxy(str(target.hostname), int(target.port or 0))) for _ in range(2)]
        settings: dict[str, Any] = {"ping_interval": 0.2, "reconnect_wait_max": 0.5}
        load = stack.enter_context(MixedLoad(ledger, "soak", lines[0].url, lines[1].url, **settings))
        commands = stack.enter_context(CommandLoad(ledger, "soak-agent", lines[1].url, 1, **settings))
        yield load, commands, Faults(dice, server, lines, load)


def soak(dice: random.Random, seconds: float, ledger: Ledger, say: Callable[[str], None]) -> None:
    """Run everything for so many seconds; AssertionError when something does not go on or the books do not balance."""
    logging.getLogger("lightlink").setLevel(logging.ERROR)  # every outage is a warning
    # Forking with threads is what is tried here.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    with everything(dice, ledger) as (load, commands, faults):
        load.wait_progress(_GO_ON)
        commands.wait_progress(_GO_ON)
        before = Resources.now()
        say(f"at the start: {before}")
        begun = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):  # it ends sooner, and the books are closed all the same
            while time.monotonic() - begun < seconds:
                happened = faults.strike()
                say(f"{time.monotonic() - begun:6.1f} s  {happened}")
                load.wait_progress(_GO_ON)
                commands.wait_progress(_GO_ON)
                time.sleep(dice.uniform(0.0, 1.0))
        say("faults: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.happened.items())))
        load.finish()
        commands.finish()
        after = Resources.now()
        say(f"at the end: {after}")
        # Some pools start with their first job, which may come late.
        assert after.threads <= before.threads + 10, [thread.name for thread in threading.enumerate()]
    ledger.balance()


def check_nothing_left(before: Resources, say: Callable[[str], None]) -> None:
    """Check that every thread and descriptor is gone."""
    eventually(lambda: threading.active_count() <= before.threads)
    after = Resources.now()
    say(f"when all is closed and the books are put away: {after}")
    assert after.descriptors <= before.descriptors, "descriptors are left"
    assert after.objects <= before.objects + 20, "objects of the library are left"
    # What is imported at first use takes some, too; one block a call would be far more.
    assert after.blocks <= before.blocks + 40_000, "memory is left"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("lightlink")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print what came of it and return the exit status."""
    parser = argparse.ArgumentParser(description="Mixed load under random faults, with books.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="of the faults, to have the same again")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say(f"soaking for {options.minutes:g} minutes, seed {seed}")
    with EmbeddedServer() as server:
        lightlink.connect(server.url).close()  # some things are made once in a process
    empty = Resources.now()
    ledger, status = Ledger(), 0
    try:
        soak(random.Random(seed), 60 * options.minutes, ledger, say)
    except AssertionError as exc:
        say(f"FAILED: {exc}")
        status = 1
    say(str(ledger))
    ledger.books.clear()
    try:
        check_nothing_left(empty, say)
    except AssertionError as exc:
        say(f"FAILED: {exc}")
        status = 1
    say("the books balance" if status == 0 else f"seed {seed} shows it again, perhaps")
    return status


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
