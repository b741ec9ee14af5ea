"""``lightlink plan`` and ``lightlink runs``."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.runs import RunWorld
from helpers.waiting import eventually

from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.errors import StoreUnavailable
from lightlink.runs import Plan, PlanRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython, StartServer

PLAN = """
name: firmware
params: {version: str}
targets: [a0, a1]
waves: [1, rest]
between: {by: [], expires: 60}
lock: everything
on_failure: rollback
steps:
- {name: install, command: install, payload: {version: '${params.version}'}, undo: {command: undo.install}}
"""


class Cli:
    """Runs ``lightlink`` in this process."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys

    def __call__(self, *args: str, code: int = Exit.DONE) -> str:
        """Return what it prints; its errors where it is to fail."""
        found = main([*args, f"--url={self._url}"])
        out, err = self._capsys.readouterr()
        assert found == code, err
        return err if code else out


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[RunWorld]:
    with RunWorld(fresh_server().url) as world:
        world.agents("a0", "a1")
        yield world


@pytest.fixture
def cli(world: RunWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    world.orchestrator()
    yield Cli(world.url, capsys)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return str(path)


def test_a_plan_is_checked_started_approved_and_followed(cli: Cli, plan: str) -> None:
    checked = cli("plan", "check", plan, '{"version": "4"}')
    assert "wave 1: 1 of 2: a0" in checked
    assert "failures borne: 0 of 2" in checked
    assert "lock: everything" in checked
    digest = checked.split("digest: ")[1].strip()
    run_id = cli("plan", "start", plan, '{"version": "4"}', "--no-wait", "--reason", "CHG-1").strip()
    eventually(lambda: run_id in cli("runs", "list", "--state", "waiting"))
    assert run_id in cli("runs", "locks")
    assert "another plan" in cli("runs", "approve", run_id, "--digest", "nonsense", code=Exit.FAILED)
    cli("runs", "approve", run_id, "--digest", digest, "--comment", "fine")
    events = [json.loads(line) for line in cli("runs", "watch", run_id, "--json").splitlines()]
    assert events[-1]["state"] == "completed"
    shown = json.loads(cli("runs", "show", run_id, "--json"))
    assert shown["steps"] == {"install": {"done": 2}}
    assert [each["outcome"] for each in shown["targets"]] == ["done", "done"]
    assert "install" in cli("runs", "show", run_id, "--targets")


def test_a_run_that_does_not_complete_ends_with_exit_code_1(cli: Cli, world: RunWorld, plan: str) -> None:
    world.failing.add(("a0", "install"))
    told = cli("plan", "start", plan, '{"version": "4"}', code=Exit.FAILED)
    assert told.startswith("started: ")
    (line,) = cli("runs", "list").splitlines()
    assert "rolled_back: install on a0" in line
    shown = cli("runs", "show", line.split()[2])
    assert "a0: failed at install" in shown


def test_a_terminal_shows_a_table_that_outlives_an_outage(
    cli: Cli, world: RunWorld, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = cli("plan", "start", plan, '{"version": "4"}', "--no-wait").strip()
    run = world.orchestrator("approver", work=False).run(run_id)
    assert run.wait_for("waiting", timeout=60) == "waiting"
    looks = []
    look = PlanRun.steps

    def steps(run: PlanRun) -> dict[str, dict[str, int]]:
        looks.append(run)
        if len(looks) == 2:
            raise StoreUnavailable("reading runs", "the server is restarted")
        if len(looks) == 3:
            run.approve()
        return look(run)

    monkeypatch.setattr(PlanRun, "steps", steps)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = cli("runs", "watch", run_id)
    assert len(looks) > 3
    assert "wave 1  waiting" in shown
    assert "wave 2  completed" in shown
    assert shown.count("install") > 1


def test_a_plan_is_kept_and_started_by_its_name(cli: Cli, plan: str) -> None:
    name = cli("plan", "store", plan).strip()
    assert cli("plan", "list").startswith(f"{name}  ")
    for flag in ((), ("--json",)):
        shown = cli("plan", "show", name, *flag)
        assert Plan.parse(shown, as_json=bool(flag)) == Plan.load(plan)
    assert "wave 1" in cli("plan", "check", name, '{"version": "4"}')
    cli("schedule", "add", "nightly", name, '{"version": "4"}', "--cron", "30 2 * * *")
    run_id = cli("plan", "start", name, '{"version": "4"}', "--no-wait").strip()
    assert run_id in cli("runs", "list")
    cli("plan", "remove", name)
    assert "no plan is stored" in cli("plan", "remove", name, code=Exit.FAILED)
    assert "no plan is stored" in cli("plan", "start", name, code=Exit.FAILED)
    assert "there is no file" in cli("plan", "start", "missing.yaml", code=Exit.USAGE)
    assert "nightly" in cli("schedule", "list")
    cli("schedule", "remove", "nightly")


def test_people_decide_in_words(cli: Cli, plan: str) -> None:
    run_id = cli("plan", "start", plan, '{"version": "4"}', "--no-wait").strip()
    eventually(lambda: run_id in cli("runs", "list", "--state", "waiting"))
    assert "paused: lunch" in cli("runs", "pause", run_id, "--reason", "lunch")
    assert "waiting" in cli("runs", "resume", run_id)
    assert "stopping: enough" in cli("runs", "cancel", run_id, "--reason", "enough")
    eventually(lambda: "cancelled" in cli("runs", "list"))
    cli("runs", "rollback", run_id)
    assert "rolled_back" in cli("runs", "watch", run_id, code=Exit.FAILED) or "rolled_back" in cli("runs", "list")
    assert "cannot retry" in cli("runs", "retry", run_id, code=Exit.FAILED)
    assert "no run has the lock" in cli("runs", "unlock", "nothing", code=Exit.FAILED)


def test_what_is_wrong_is_said_in_one_line(cli: Cli, plan: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(PLAN.replace("command: install,", "comand: install,"))
    assert "steps[0]: Object contains unknown field `comand`" in cli("plan", "check", str(bad), code=Exit.FAILED)
    assert "params.version: must be given" in cli("plan", "start", plan, code=Exit.FAILED)
    bad.write_text(PLAN.replace("[a0, a1]", "{labels: {kind: sensor}}"))
    assert "no agent that was ever seen has kind=sensor" in cli("plan", "check", str(bad), '{"version": "4"}', code=1)
    assert "there is no run 'nonsense'" in cli("runs", "show", "nonsense", code=Exit.FAILED)


# Its signals go to a thread that does nothing with them, as the system may choose any.
WORKER = """
    import signal, sys, threading
    from lightlink.cli import main

    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sys.exit(main())
"""


def test_a_process_carries_runs_out_until_it_is_told_to_stop(
    fresh_server: StartServer, python: StartPython, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunWorld(fresh_server().url) as world:
        world.agents("a0", "a1")
        starter = world.orchestrator("starter", work=False)
        run = starter.start(Plan.parse(PLAN), {"version": "4"})
        assert run.wait(0.5) is None
        assert main(["runs", "watch", run.run_id, "--timeout", "0.1", f"--url={world.url}"]) == Exit.TIMEOUT
        assert "note: nobody carries out runs now: start `lightlink runs work`" in capsys.readouterr().err
        worker = python(WORKER, "runs", "work", "--url", world.url)
        assert run.wait_for("waiting", timeout=60) == "waiting"
        assert starter.is_worked_on()
        run.approve()
        assert run.wait(60) == "completed"
        worker.signal(signal.SIGTERM)
        assert worker.wait().returncode == 128 + signal.SIGTERM


def test_plans_run_by_the_clock_and_not_in_a_freeze(cli: Cli, plan: str) -> None:
    assert "nightly: next at" in cli(
        "schedule", "add", "nightly", plan, '{"version": "4"}', "--cron", "30 2 * * *", "--tz", "Europe/Berlin"
    )
    assert "firmware  30 2 * * * Europe/Berlin" in cli("schedule", "list")
    assert json.loads(cli("schedule", "list", "--json"))["schedule"]["name"] == "nightly"
    window = ["--window", "Sat 22:00", "--hours", "6"]
    cli("schedule", "add", "nightly", plan, '{"version": "4"}', "--cron", "30 2 * * *", *window)
    shown = json.loads(cli("schedule", "list", "--json"))["schedule"]["plan"]["window"]
    assert shown == {"opens": "Sat 22:00", "hours": 6.0}
    bad = ["schedule", "add", "x", plan, '{"version": "4"}', "--cron", "30 2 * * *"]
    assert "go together" in cli(*bad, *window[:2], code=Exit.USAGE)
    assert "window: must be more than 0" in cli(*bad, *window[:3], "0", code=Exit.FAILED)
    assert "whenever" in cli("schedule", "add", "x", plan, '{"version": "4"}', "--cron", "whenever", code=Exit.USAGE)
    cli("schedule", "remove", "nightly")
    assert "no schedule 'nightly'" in cli("schedule", "remove", "nightly", code=Exit.FAILED)
    cli("runs", "freeze", "--reason", "Christmas")
    run_id = cli("plan", "start", plan, '{"version": "4"}', "--no-wait").strip()
    eventually(lambda: "Christmas" in cli("runs", "list", "--state", "held"))
    cli("runs", "thaw")
    assert "nothing is frozen" in cli("runs", "thaw", code=Exit.FAILED)
    eventually(lambda: run_id in cli("runs", "list", "--state", "waiting"))
    # What the audit has comes a moment later.
    eventually(lambda: f"firmware  {run_id}  held, held: frozen by cli:" in cli("command", "audit"))
