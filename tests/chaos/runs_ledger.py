"""Runs among orchestrators that die and stand still: what agents wrote down, held against what the runs say."""

from __future__ import annotations

import itertools
import json
import random
import signal
import time
from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
from helpers.process import PythonProcess
from helpers.waiting import eventually

from lightlink.errors import RunRefused, StoreUnavailable
from lightlink.runs import Approval, Plan
from lightlink.runs.model.times import next_time
from lightlink.runs.scheduler import planned_run_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from typing import TypeVar

    from lightlink.server import EmbeddedCluster

    T = TypeVar("T")

    from lightlink.runs import Orchestrator, PlanRun

# An agent writes down when a handler begins and ends, in one line each, which is one write to a file opened to append.
# Clocks are an hour apart; what is written down counts by the right one.
SHIFT = """
import time

right, shift = time.time, float(__import__("sys").argv[1])
time.time = lambda: right() + shift
"""
AGENT = (
    SHIFT
    + """
import hashlib, json, os, sys
from lightlink.commands import Agent, CommandContext, StoreOptions

_, url, ledger, *names = sys.argv[1:]
book = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(what, client, kind, context, run):
    line = [what, client, kind, context.command_id, run, right()]
    os.write(book, (json.dumps(line) + chr(10)).encode())

def handler(client, kind):
    def handle(context: CommandContext, run: str = ""):
        note("begun", client, kind, context, run)
        dice = int(hashlib.sha256(f"{run} {client} {kind}".encode()).hexdigest(), 16)
        time.sleep(dice % 40 / 1000)
        if kind == "two" and dice % 23 == 0:
            note("failed", client, kind, context, run)
            raise ValueError("as the dice fell")
        note("done", client, kind, context, run)
        return {"client": client}
    return handle

for name in names:
    agent = Agent(name, url.split(","), store=StoreOptions(ack_wait=2.0, heartbeat=0.5), workers=2)
    for kind in ("one", "two", "three", "undo.two"):
        agent.register(kind, handler(name, kind))
    agent.start(timeout=60)
print("ready")
sys.stdin.read()
"""
)

# Beside its work on runs each looks all the time at what is due by a clock that goes an hour in no time: it stands on
# the hour that is written in a file until that was dealt with, so that each hour has everybody look, also too late.
ORCHESTRATOR = (
    SHIFT
    + """
import pathlib, sys, threading
from datetime import datetime, timedelta
import lightlink
from lightlink.commands import StoreOptions
from lightlink.errors import LightLinkError
from lightlink.runs import Orchestrator
from lightlink.runs.scheduler import Scheduler

_, url, name, hour = sys.argv[1:]
store = StoreOptions(ack_wait=2.0, heartbeat=0.5)

def look(scheduler):
    while not stopping.wait(0.05):
        at = pathlib.Path(hour).read_text()
        if at:
            try:
                scheduler.fire(datetime.fromisoformat(at) + timedelta(seconds=1))
            except LightLinkError:
                pass  # it looks again

with lightlink.connect(url.split(","), name=name, wait=60) as client, Orchestrator(client, store=store) as orchestrator:
    stopping = threading.Event()
    scheduler = Scheduler(orchestrator._ports.definitions, orchestrator._ports.runs, orchestrator._prepared)
    thread = threading.Thread(target=look, args=(scheduler,))
    thread.start()
    print("ready")
    sys.stdin.read()
    stopping.set()
    thread.join()
"""
)


def plan_of(targets: list[str], dice: random.Random) -> Plan:
    """Return a plan of three steps, the second of which fails now and then."""
    gate = Approval(expires=120) if dice.random() < 0.3 else None
    plan = Plan(
        "chaos",
        targets=targets,
        waves=dice.choice([["rest"], [1, "rest"], ["30%", "rest"]]),
        soak=dice.choice([0, 0.2]),
        between=gate,
        lock=locks_of(dice) if dice.random() < 0.4 else [],
        max_failures=dice.choice([0, 1]),
        on_failure=dice.choice(["stop", "rollback"]),
        barrier=dice.random() < 0.7,
        timeout=300,
    )
    facts = {"run": "${run.id}"}
    plan.step("one", "one", facts, timeout=60)
    plan.step("two", "two", facts, timeout=60, undo=("undo.two", facts), undo_on="begun")
    return plan.step("three", "three", facts, timeout=60)


def locks_of(dice: random.Random) -> list[str]:
    """Return two or three of five locks, so that many runs want some of what others have."""
    return [f"lock-{each}" for each in dice.sample(range(5), dice.randint(2, 3))]


class Clock:
    """The hours of a schedule, which come as fast as somebody deals with them, and are all written down."""

    def __init__(self, orchestrator: Orchestrator, file: Path, targets: list[str]) -> None:
        self._file = file
        file.write_text("")
        plan = Plan("hourly", targets=targets, barrier=False, timeout=300)
        plan.step("one", "one", {"run": "${run.id}"}, timeout=60)
        patiently(lambda: orchestrator.schedule("hourly", plan, cron="0 * * * *", overlap="allow", missed="run"))
        self.hours = [next_time("0 * * * *", "UTC", orchestrator.now())]
        self._show()

    def look(self, orchestrator: Orchestrator) -> bool:
        """Tell whether the last hour was dealt with, and then let the next one come."""
        if not self._is_dealt_with(orchestrator):
            return False
        self.hours.append(self.hours[-1] + timedelta(hours=1))
        self._show()
        return True

    def stop(self, orchestrator: Orchestrator) -> None:
        """Let no more hours come, once the last one was dealt with."""
        assert eventually(lambda: self._is_dealt_with(orchestrator), 60)
        self._file.write_text("")

    def _is_dealt_with(self, orchestrator: Orchestrator) -> bool:
        (schedule,) = patiently(orchestrator.schedules)
        return schedule.last is not None and schedule.last >= self.hours[-1]

    def _show(self) -> None:
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(self.hours[-1].isoformat())
        fresh.replace(self._file)


class Chaos:
    """Orchestrators and agents in processes, of which one is killed or stopped now and then, and replaced."""

    def __init__(
        self, url: str, ledger: Path, agents: list[list[str]], orchestrators: int, dice: random.Random, hour: Path
    ) -> None:
        self._dice = dice
        clocks = itertools.cycle((0, 3600, -3600))
        self._snippets: list[tuple[Any, ...]] = [(AGENT, next(clocks), url, ledger, *names) for names in agents]
        self._snippets += [
            (ORCHESTRATOR, next(clocks), url, f"orchestrator-{each}", hour) for each in range(orchestrators)
        ]
        self._processes = [PythonProcess(*each) for each in self._snippets]
        for process in self._processes:
            process.wait_line("ready", 60)
        self._frozen: set[int] = set()
        self.killed = self.frozen = self.servers_killed = 0

    def strike(self) -> None:
        """Kill one, or stop it for a while, or let one go on that was stopped."""
        number = self._dice.randrange(len(self._processes))
        process = self._processes[number]
        if number in self._frozen:
            process.signal(signal.SIGCONT)
            self._frozen.discard(number)
        elif self._dice.random() < 0.5:
            process.signal(signal.SIGSTOP)
            self._frozen.add(number)
            self.frozen += 1
        else:
            process.kill()
            self.killed += 1
            self._processes[number] = PythonProcess(*self._snippets[number])

    def strike_server(self, cluster: EmbeddedCluster) -> None:
        """Kill a server of a cluster, or start the one that is down."""
        down = [node for node in cluster.nodes if not node.running]
        if down:
            down[0].start()
        else:
            self._dice.choice(cluster.nodes).kill()
            self.servers_killed += 1

    def relent(self) -> None:
        """Let all go on that are stopped."""
        for number in self._frozen:
            self._processes[number].signal(signal.SIGCONT)
        self._frozen.clear()

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            process.kill()


@attrs.define
class Books:
    """What the agents wrote down, by run."""

    lines: list[list[Any]]
    faults: list[str] = attrs.Factory(list)

    @classmethod
    def read(cls, ledger: Path) -> Books:
        """Return what is written in a ledger."""
        return cls([json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else [])

    def begun(self, run_id: str, kind: str | None = None) -> list[list[Any]]:
        """Return the beginnings of a run's commands."""
        return [each for each in self.lines if each[0] == "begun" and each[4] == run_id and kind in (None, each[2])]

    def check(self, run: PlanRun, orchestrator: Orchestrator) -> None:
        """Note everything that should not have happened in an ended run."""
        state = run.refresh()
        self._check_once(run)
        self._check_order(run)
        if state.state in ("rolled_back", "rollback_incomplete"):
            commands = patiently(lambda: orchestrator.list(batch_id=run.run_id, command_type="two", limit=1000))
            # An agent may die between saying that it begins and the handler's first line: that is undone as well.
            taken = {each.client_id for each in commands if each.attempt}
            self._check_undo(run, taken, {each.client_id for each in state.attention})
        elif self.begun(run.run_id, "undo.two"):
            self.faults.append(f"{run.run_id}: undone, though it {state.state}")
        if state.state == "cancelled":
            final = state.at.timestamp()
            late = [each for each in self.begun(run.run_id) if each[5] > final]
            self.faults += [f"{run.run_id}: {each[1]}.{each[2]} began after the final cancel" for each in late]

    def check_locks(self, runs: list[PlanRun]) -> None:
        """Note runs that were at work at the same time though they need one lock."""
        spans = []
        for run in runs:
            times = [each[5] for each in self.lines if each[4] == run.run_id]
            if times and run.plan.locks:
                spans.append((min(times), max(times), run))
        for (_, end, one), (start, _, other) in itertools.combinations(sorted(spans, key=lambda span: span[0]), 2):
            if start < end and set(one.plan.locks) & set(other.plan.locks):
                self.faults.append(f"{one.run_id} and {other.run_id} had one lock at the same time")

    def check_schedule(self, hours: list[datetime], runs: list[PlanRun]) -> None:
        """Note each hour that has not made exactly one run, begun once."""
        wanted = {planned_run_id("hourly", hour): hour for hour in hours}
        found = Counter(run.run_id for run in runs)
        self.faults += [f"{hour}: no run was made" for each, hour in wanted.items() if each not in found]
        self.faults += [f"{each}: a run of no hour" for each in found if each not in wanted]
        for run in runs:
            begun = [state.event for state in run.history()].count("started")
            if begun != 1:
                self.faults.append(f"{run.run_id}: started {begun} times")

    def _check_once(self, run: PlanRun) -> None:
        for (client, kind), number in Counter((each[1], each[2]) for each in self.begun(run.run_id)).items():
            if number > 1:
                self.faults.append(f"{run.run_id}: {client}.{kind} ran {number} times")

    def _check_order(self, run: PlanRun) -> None:
        ended: dict[tuple[str, str], float] = {
            (each[1], each[2]): each[5] for each in self.lines if each[4] == run.run_id and each[0] == "done"
        }
        for _, client, kind, _, _, at in self.begun(run.run_id):
            before = {"two": "one", "three": "two"}.get(kind)
            if before is not None and not ended.get((client, before), at + 1) <= at:
                self.faults.append(f"{run.run_id}: {client}.{kind} began before {before} had ended")
        waves = defaultdict(list)
        of = {each.client_id: each.wave for each in run.targets()}
        for _, client, kind, _, _, at in self.begun(run.run_id):
            if not kind.startswith("undo"):
                waves[of[client]].append(at)
        for wave, times in waves.items():
            if wave and min(times) < max(waves.get(wave - 1, []), default=0):
                self.faults.append(f"{run.run_id}: wave {wave + 1} began before wave {wave} had")

    def _check_undo(self, run: PlanRun, taken: set[str], attention: set[str]) -> None:
        begun = {each[1] for each in self.begun(run.run_id, "two")}
        undone = {each[1] for each in self.begun(run.run_id, "undo.two")}
        self.faults += [f"{run.run_id}: {each} was not undone" for each in sorted(begun - undone - attention)]
        self.faults += [f"{run.run_id}: {each} was undone, and not done" for each in sorted(undone - begun - taken)]


def rough_life(
    orchestrator: Orchestrator,
    chaos: Chaos,
    targets: list[str],
    runs: int,
    seconds: float,
    dice: random.Random,
    clock: Clock,
    cluster: EmbeddedCluster | None = None,
) -> list[PlanRun]:
    """Start runs, approve and cancel some, and strike meanwhile; return them once all have ended."""
    started: list[PlanRun] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(started) < runs:
        if len(started) < runs:
            some = dice.sample(targets, dice.randint(2, len(targets)))
            plan, key = plan_of(some, dice), f"run-{len(started)}"
            started.append(patiently(lambda: orchestrator.start(plan, idempotency_key=key)))  # noqa: B023 - at once
        if dice.random() < 0.3:
            chaos.strike()
        if cluster is not None and dice.random() < 0.05:
            chaos.strike_server(cluster)
        if dice.random() < 0.1 and started:
            run = dice.choice(started)
            patiently(lambda: _cancel(run))  # noqa: B023 - at once
        patiently(lambda: _approve_all(orchestrator))
        if dice.random() < 0.3:
            clock.look(orchestrator)
        time.sleep(dice.random() * 0.1)
    chaos.relent()
    for node in cluster.nodes if cluster is not None else ():
        if not node.running:
            node.start()
    clock.stop(orchestrator)
    give_up = time.monotonic() + 360  # by then each has come to its own deadline
    while [state for state in patiently(lambda: orchestrator.runs(limit=1000)) if not state.ended]:
        assert time.monotonic() < give_up, [state for state in orchestrator.runs() if not state.ended]
        patiently(lambda: _approve_all(orchestrator))
        time.sleep(0.1)
    return started


def patiently(function: Callable[[], T]) -> T:
    """Return what a function returns once the store answers."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return function()
        except StoreUnavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


def _approve_all(orchestrator: Orchestrator) -> None:
    for state in orchestrator.runs(state="waiting"):
        try:
            orchestrator.run(state.run_id).approve("go on")
        except RunRefused:
            continue  # cancelled meanwhile


def _cancel(run: PlanRun) -> None:
    try:
        run.cancel("the dice fell so")
    except RunRefused:
        return  # it has ended


def summary(books: Books, runs: list[PlanRun], planned: list[PlanRun], chaos: Chaos) -> str:
    """Return the books in one line."""
    states = Counter(run.refresh().state for run in runs)
    begun = sum(each[0] == "begun" for each in books.lines)
    told = f"{len(runs)} runs {dict(states)}, {len(planned)} by a schedule, commands begun {begun}"
    told += f", servers killed {chaos.servers_killed}"
    return f"{told}, processes killed {chaos.killed}, frozen {chaos.frozen}; faults {len(books.faults)}"
