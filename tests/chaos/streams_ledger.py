"""Durable events among consumers that are killed: what handlers wrote down, held against what was stored."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs
from helpers.process import PythonProcess

from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightlink
    from lightlink.server import EmbeddedCluster, EmbeddedServer

CUSTOMERS = 20
# So many events are on their way to each worker of a consumer at most; on a slow machine most of them are.
_UNDER_WAY = 32
_AT_ONCE = 100

# One line a beginning or end, in one write to a file opened to append. Some events cannot be handled, some kill.
CONSUMER = """
import json, os, sys, time
import lightlink
from lightlink import Reject
from lightlink.streams import StoredMessage

urls, ledger, workers, partitions, name = sys.argv[1:]
options = {"partitions": int(partitions)} if partitions else {}
book = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(what, message):
    line = [what, os.getpid(), message.sequence, message.data["customer"], message.attempt, time.monotonic_ns()]
    os.write(book, (json.dumps(line) + chr(10)).encode())

with lightlink.connect(urls, name=name, wait=60, reconnect_wait=0.05) as client:
    if int(workers) > 1 and not partitions:
        options["key"] = lambda message: message.data["customer"]
    # An event may be handed out again though it was done, each time that a server or a consumer dies, and on a slow
    # machine many do: each counts as an attempt, and none of them may be the last.
    options |= {"workers": int(workers), "timeout": 3, "retries": [0.05] * 500, "ack_wait": 1.0}
    @client.consume("ledger.>", name="ledger", **options)
    def handle(message: StoredMessage) -> None:
        note("begun", message)
        number = message.data["number"]
        if number % 997 == 13:
            raise Reject("an unlucky number")
        if number % 503 == 7 and message.attempt == 1:
            raise ValueError("the first time")
        if number % 601 == 3 and message.attempt == 1:
            message.cancelled.wait(60)  # it hangs until its time is over
            return
        if number % 701 == 5 and message.attempt == 1:
            os._exit(9)
        note("done", message)
    print("ready")
    sys.stdin.read()
"""


@attrs.define
class Books:
    """What handlers wrote down."""

    path: Path
    lines: list[list[Any]] = attrs.Factory(list)
    done: set[int] = attrs.Factory(set)
    faults: list[str] = attrs.Factory(list)
    _read: int = 0

    def read(self) -> None:
        """Read what was added; a line that a killed process did not finish is left out."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            added, _, _ = file.read().rpartition(b"\n")
        self._read += len(added)
        for line in added.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self.lines.append(entry)
            if entry[0] == "done":
                self.done.add(entry[2])

    def check(self, stored: dict[int, int], dead: set[int], crashes: int, *, workers: int, partitions: int) -> str:
        """Note what was lost, done twice without a crash, out of order or at the same time; return the books."""
        done = Counter(each[2] for each in self.lines if each[0] == "done")
        self.faults += [
            f"event {sequence} was lost" for sequence in stored if not done[sequence] and sequence not in dead
        ]
        self.faults += [f"event {sequence} was done and parked" for sequence in dead if done[sequence]]
        expected = {sequence for sequence, number in stored.items() if number % 997 == 13}
        if dead != expected:
            self.faults.append(f"parked are {len(dead)}, not {len(expected)}: {sorted(dead ^ expected)[:5]}")
        again = sum(number - 1 for number in done.values())
        if again and not crashes:
            self.faults.append(f"{again} were done again though nothing was killed")
        if partitions:
            self._check_partitions()
        else:
            self._check_lanes(crashes, workers)
        return f"{len(stored)} stored, {len(done)} done, {again} again, {len(dead)} parked; faults {len(self.faults)}"

    def _check_lanes(self, crashes: int, workers: int) -> None:
        """In each process events of one customer (of all, with one worker) are in order and do not overlap.

        What was on its way to one that was killed comes to another later, and counts as never delivered, as does what a
        killed server has forgotten to have handed out: so many may be late.
        """
        strict = workers == 1
        late: list[str] = []
        # What a server has forgotten to have handed out comes again, as if for the first time, to any process.
        first: dict[int, int] = {}
        for what, _, sequence, _, _, at in self.lines:
            if what == "begun":
                first[sequence] = min(at, first.get(sequence, at))
        lanes: dict[tuple[int, Any], list[list[Any]]] = defaultdict(list)
        for each in self.lines:
            lanes[(each[1], None if strict else each[3])].append(each)
        for (process, lane), entries in lanes.items():
            last, running = 0, 0
            for what, _, sequence, _, attempt, at in sorted(entries, key=lambda each: each[5]):
                if what == "begun":
                    if attempt == 1 and sequence < last and first[sequence] == at:
                        late.append(f"process {process}, {lane}: {sequence} began after {last}")
                    last, running = max(last, sequence), sequence
                elif sequence != running:
                    self.faults.append(f"process {process}, {lane}: {sequence} ended while {running} ran")
        if strict or len(late) > _UNDER_WAY * workers * crashes:
            self.faults += late

    def _check_partitions(self) -> None:
        """Of all processes together events of one customer are in order and do not overlap."""
        lanes: dict[int, list[list[Any]]] = defaultdict(list)
        for each in self.lines:
            lanes[each[3]].append(each)
        for customer, entries in lanes.items():
            last, running = 0, (0, 0)
            for what, process, sequence, _, _, _ in sorted(entries, key=lambda each: each[5]):
                if what == "begun":
                    if sequence < last:
                        self.faults.append(f"customer {customer}: {sequence} began after {last}")
                    last, running = sequence, (process, sequence)
                elif (process, sequence) != running:
                    self.faults.append(f"customer {customer}: {sequence} ended while {running} ran")


class Publisher:
    """Stores events in a thread, each once, whatever happens to servers meanwhile."""

    def __init__(self, client: lightlink.Client, count: int) -> None:
        self._client = client
        self._count = count
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._store)
        self._stored: dict[int, int] | None = None

    def stored(self) -> dict[int, int] | None:
        """Return the number in each event by its sequence, once all are stored; None until then."""
        if self._stored is not None or not self._done.done():
            return self._stored
        self._done.result()
        self._pool.shutdown()
        self._stored = {message.sequence: message.data["number"] for message in self._client.replay("ledger.>")}
        return self._stored

    def _store(self) -> None:
        for first in range(0, self._count, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, self._count))
            while True:
                try:
                    with self._client.storing(timeout=2) as batch:
                        for number in numbers:
                            customer = number % CUSTOMERS
                            batch.publish(
                                f"ledger.{customer}", {"number": number, "customer": customer}, id=str(number)
                            )
                    break
                except LightLinkError:
                    time.sleep(0.1)  # stored or not: the ids say so


class Consumers:
    """Processes that consume, of which one is killed or stands still now and then; all that died are replaced."""

    def __init__(
        self, urls: Sequence[str], ledger: Path, count: int, workers: int, partitions: int, dice: random.Random
    ) -> None:
        self._snippet = (CONSUMER, ",".join(urls), ledger, workers, partitions or "")
        self._dice = dice
        self.crashes = 0
        self.strikes = 0
        self._processes = [PythonProcess(*self._snippet, f"consumer-{number}") for number in range(count)]

    def strike(self) -> None:
        """Kill one, or let it stand still for a moment."""
        self.strikes += 1
        process = self._dice.choice(self._processes)
        if self._dice.random() < 0.5:
            process.signal(signal.SIGKILL)
            self.crashes += 1
        else:
            process.signal(signal.SIGSTOP)
            time.sleep(self._dice.random() * 0.3)
            process.signal(signal.SIGCONT)

    def replace(self) -> None:
        """Start others for those that have ended."""
        for number, process in enumerate(self._processes):
            if process.has_ended:
                self.crashes += 1
                process.kill()
                self._processes[number] = PythonProcess(*self._snippet, f"consumer-{number}")

    def close(self) -> None:
        """End all."""
        for process in self._processes:
            process.kill()


class Servers:
    """Servers of which one is killed now and then, and starts again."""

    def __init__(self, nodes: Sequence[EmbeddedServer], cluster: EmbeddedCluster | None, dice: random.Random) -> None:
        self._nodes = nodes
        self._cluster = cluster
        self._dice = dice
        self.crashes = 0
        for node in nodes:
            node.ready_timeout = 60.0  # it reads again what it had stored

    def strike(self) -> None:
        """Kill one, and return once it is one of them again."""
        node = self._dice.choice(self._nodes)
        node.kill()
        self.crashes += 1
        time.sleep(self._dice.random())
        node.start()
        if self._cluster is not None:
            self._cluster.wait_ready(60)
