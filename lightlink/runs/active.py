"""A run that this manager works on, from one revision of its state to the next."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from lightlink.commands.model import RequestRecord
from lightlink.commands.store.access import Conflict
from lightlink.concurrency.threads import Condition
from lightlink.errors import StoreUnavailable
from lightlink.runs import trouble
from lightlink.runs.model import machine, records
from lightlink.runs.model.lanes import RUN_ITSELF, Lane, once_lane, undo_lanes, wave_lanes
from lightlink.runs.model.stage import Stage, undo_attention
from lightlink.runs.work import StageWork, StillCalling, bar, is_any_sent, read_statuses

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lightlink.jetstream.pull import Pulled
    from lightlink.runs.model.records import Attention, RunPlan, RunState
    from lightlink.runs.work import Ports

_log = logging.getLogger("lightlink")

_RETRY_SECONDS = 1.0
# How long past the time of what is under way nothing has to be heard of it before a run is given up.
_SILENT_SECONDS = 60.0
_COUNTED = ("done", "failed", "not_run", "unknown", "left")


class Active:
    """Works on a run until its state moves on; then ``settle(pulled, delay)`` is called: 0 means that it is done with.

    Whatever goes wrong, the revision is handed back, and somebody goes on from what is stored.
    """

    def __init__(
        self,
        ports: Ports,
        run: RunPlan,
        state: RunState,
        pulled: Pulled,
        settle: Callable[[Active, float], object],
    ) -> None:
        self.run = run
        self.state = state
        self.pulled = pulled
        self.revision = pulled.message.seq
        self._ports = ports
        self._settle = settle
        self._works: list[StageWork] = []
        self._attention: list[Attention] = []
        self._lock = Condition()
        self._turn = Condition()
        self._is_waiting = False
        self._is_dropped = False
        self._heard_at = time.monotonic()

    # On threads of the library ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have what was heard taken in, soon; many wakes become one."""
        with self._lock:
            if self._is_waiting or self._is_dropped:
                return
            self._is_waiting = True
        self._ports.pool.put(self._go_on)

    def drop(self) -> None:
        """Do no more: somebody has written a newer revision, or this manager stops."""
        with self._lock:
            self._is_dropped = True

    # On threads of the pool -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Work out where the run is, and send what is to be sent."""
        self._guarded(self._begin)

    def has_begun(self) -> bool:
        """Tell whether anything of this stage was sent, whoever did; raises StoreUnavailable."""
        if self._is_fresh():
            return False  # most waves, for which nothing has to be read
        work = StageWork(self._ports, self.run, self._stage(self.state.stage), self.wake)
        work.load(from_leader=True)
        return not work.stage.is_idle or is_any_sent(self._ports, work.stage.ids_to_bar())

    def _go_on(self) -> None:
        with self._lock:
            self._is_waiting = False
        self._guarded(self._advance)

    def _guarded(self, function: Callable[[], object]) -> None:
        with self._turn:
            if self._is_dropped:
                return
            try:
                function()
            except StillCalling:
                self._leave(_RETRY_SECONDS)
            except Conflict:
                self._leave(0.0)
            except Exception as exc:
                self._leave(trouble.settle(self._ports.runs, self.run, self.state, self.revision, exc))

    def _leave(self, delay: float) -> None:
        self.drop()
        self._settle(self, delay)

    def _move(self, state: RunState) -> None:
        self._ports.runs.write_state(state, self.revision)
        _log.info("lightlink: run %s of %s: %s", self.run.run_id, self.run.plan.name, state.event)
        self._leave(0.0)

    def _begin(self) -> None:
        stage = self.state.stage
        if stage == records.HALT:
            self._works = self._halted_works()
        elif stage == records.UNDO:
            self._works = self._undo_works()
        else:
            work = StageWork(self._ports, self.run, self._stage(stage), self.wake)
            if self._is_fresh():
                work.stage.learn_all({})
            else:
                work.load()
            self._works = [work]
        self._advance()

    def _is_fresh(self) -> bool:
        """Tell whether nobody can have sent anything of this stage; if somebody has after all, the store says so."""
        return self.pulled.attempt == 1 and not self.state.epoch and self.state.event != "resumed"

    def _advance(self) -> None:
        for work in self._works[:1]:
            if work.gather():
                self._heard_at = time.monotonic()
        if self._stands_still():
            why = f"nothing more was heard of what was under way while {self.state.state}"
            self._move(machine.given_up(self.state, self._now(), why))
            return
        if self._is_late():
            self._move(machine.overdue(self.run, self.state, self._now()))
            return
        if self._has_failed_too_often():
            self._move(machine.halted(self.run, self.state, self._now(), self._works[0].stage.first_error()))
            return
        if self.state.stage != records.HALT:
            self._send()
        while self._works and self._works[0].stage.is_done:
            self._attention += undo_attention(self._works[0].stage) if self.state.stage == records.UNDO else []
            if len(self._works) == 1:
                self._move(self._next())
                return
            del self._works[0]
            self._works[0].load(from_leader=True)
            self._send()

    def _send(self) -> None:
        if not self._works:
            return
        most = self.run.plan.max_concurrency
        room = None if most is None else most - self._works[0].stage.under_way
        self._works[0].send(room)

    # What follows -----------------------------------------------------------------------------------------------------

    def _next(self) -> RunState:
        at, stage = self._now(), self._works[-1].stage
        if self.state.stage == records.FIRST:
            if stage.failures:
                return machine.halted(self.run, self.state, at, stage.first_error())
            return machine.went_on(self.run, self.state, at)
        if self.state.stage == records.WAVE:
            idle = self.state.epoch > 0 and stage.is_idle
            return machine.went_on(self.run, self.state, at, self._counts(stage), idle)
        if self.state.stage == records.HALT:
            was_wave = self.state.halted_in == records.WAVE
            return machine.settled(self.state, at, self._counts(stage) if was_wave else self.state.counts)
        if self.state.stage == records.UNDO:
            return machine.undone(self.run, self.state, at, self._attention)
        return machine.ended(self.state, at, stage.first_error())

    def _counts(self, stage: Stage) -> dict[str, int]:
        """Return what the targets of all waves came to so far."""
        found = dict(self.state.counts) if self.state.wave else {}
        for name, number in stage.counts().items():
            if name in _COUNTED:
                found[name] = found.get(name, 0) + number
        return found

    def _is_late(self) -> bool:
        deadline, stage = self.state.deadline, self.state.stage
        return deadline is not None and stage in (records.FIRST, records.WAVE) and self._now() > deadline

    def _stands_still(self) -> bool:
        """Tell whether nothing was heard for longer than any command takes, in a stage that has no deadline."""
        if self.state.stage not in (records.HALT, records.UNDO, records.LAST):
            return False
        longest = max((max(step.seconds, step.undo_seconds) for step in self.run.plan.steps), default=0.0)
        return time.monotonic() - self._heard_at > 2 * longest + _SILENT_SECONDS

    def _has_failed_too_often(self) -> bool:
        plan = self.run.plan
        if self.state.stage != records.WAVE or plan.on_failure == "continue":
            return False
        before = self.state.counts if self.state.wave else {}
        failed = sum(before.get(name, 0) for name in ("failed", "not_run", "unknown")) + self._works[0].stage.failures
        return failed > plan.failures_allowed(len(self.run.targets))

    def _now(self) -> Any:
        return self._ports.runs.clock.now()

    # Where a run is ---------------------------------------------------------------------------------------------------

    def _stage(self, name: str) -> Stage:
        plan, state = self.run.plan, self.state
        if name == records.FIRST:
            return Stage(self.run, [once_lane(plan.first_steps)], state.epoch)
        results = self._first_results()
        if name == records.LAST:
            only_always = bool(state.verdict)
            return Stage(self.run, [once_lane(plan.last_steps, only_always)], state.epoch, results=results)
        return self._wave_stage(state.wave, results)

    def _stage_to_halt(self, name: str) -> Stage:
        """Return the stage in which nothing begins any more; last steps that are always done come after it."""
        if name != records.LAST:
            return self._stage(name)
        steps = [step for step in self.run.plan.last_steps if not step.always]
        return Stage(self.run, [once_lane(steps)], self.state.epoch, results=self._first_results())

    def _wave_stage(self, wave: int, results: dict[str, Any]) -> Stage:
        lanes = wave_lanes(self.run, self.run.waves[wave])
        return Stage(self.run, lanes, self.state.epoch, wave=wave, barrier=self.run.plan.barrier, results=results)

    def _first_results(self) -> dict[str, Any]:
        """Return the results of the steps that were done before the waves."""
        return self._first_lane().results if self.run.plan.first_steps else {}

    def _first_lane(self) -> Lane:
        lane = once_lane(self.run.plan.first_steps)
        stage = Stage(self.run, [lane], self.state.epoch)
        stage.learn_all(read_statuses(self._ports, self.run, stage.ids(), from_leader=True))
        stage.settle_begun()
        return lane

    def _halted_works(self) -> list[StageWork]:
        """Have nothing begin any more, and wait for what runs."""
        where = self.state.halted_in
        if where not in (records.FIRST, records.WAVE, records.LAST):
            return [StageWork(self._ports, self.run, Stage(self.run, [], 0), self.wake)]
        work = StageWork(self._ports, self.run, self._stage_to_halt(where), self.wake)
        work.load(from_leader=True)
        cancel = self.state.verdict == "cancelled"
        running = bar(self._ports, self.run, work.stage, cancel=cancel, reason=self.state.reason)
        commands = [each for each in running if each[0] != RUN_ITSELF]
        self._end_calls(work.stage, [command_id for client_id, command_id in running if client_id == RUN_ITSELF])
        work.follow(self._requests(commands))
        return [work]

    def _requests(self, commands: list[tuple[str, str]]) -> list[RequestRecord]:
        """Return what running commands were asked; raises StoreUnavailable: nobody can follow what it cannot read."""
        requests = []
        for (_, command_id), each in zip(commands, self._ports.commands.read_requests(commands), strict=True):
            if not isinstance(each, RequestRecord):
                raise StoreUnavailable(
                    "stopping a run", f"the request of command {command_id}, which runs, is not there"
                )
            requests.append(each)
        return requests

    def _end_calls(self, stage: Stage, ids: list[str]) -> None:
        """Learn how calls have ended; raises StillCalling while one goes on, of which nothing tells when it ends."""
        ends = {each: self._ports.calls.end_of(self.run.run_id, each, stage.timeout_of(each)) for each in ids}
        if not all(ends.values()):
            raise StillCalling(self.run.run_id)
        stage.learn_all(ends)

    def _undo_works(self) -> list[StageWork]:
        """Return what takes back the waves so far, or the last, and then the steps before them."""
        whole = self.state.verdict == "rollback"
        results = self._first_results()
        done: list[Lane] = []
        for wave in self._waves_to_undo(whole):
            stage = self._wave_stage(wave, results)
            stage.learn_all(read_statuses(self._ports, self.run, stage.ids(), from_leader=True))
            stage.settle_begun()
            done += stage.lanes.values()
        works = [self._undo_work(done, results)]
        if whole and self.run.plan.first_steps:
            works.append(self._undo_work([self._first_lane()], results))
        works[0].load(from_leader=True)
        return works

    def _waves_to_undo(self, whole: bool) -> range:
        begun = self.state.waves_begun
        if whole:
            return range(min(begun, len(self.run.waves)))
        # Tried again, and halted before its waves: the one that it was to begin with had been done before.
        none = self.state.halted_in in (records.LOCK, records.FIRST)
        return range(0) if none else range(self.state.wave, min(self.state.wave + 1, len(self.run.waves)))

    def _undo_work(self, done: list[Lane], results: dict[str, Any]) -> StageWork:
        lanes, attention = undo_lanes(done)
        self._attention += attention
        stage = Stage(self.run, lanes, self.state.undo_epoch, barrier=False, results=results)
        return StageWork(self._ports, self.run, stage, self.wake)
