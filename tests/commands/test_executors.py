"""Handlers that are ready to use."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import World
from helpers.process import alive, script
from helpers.waiting import eventually

from lightlink.commands import executors, subprocesses
from lightlink.commands.agent.handlers import Rejected
from lightlink.concurrency.threads import Event, start_thread
from lightlink.errors import CommandCancelled, CommandFailed, CommandTimeout, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands import Agent, CommandManager

    Run = Callable[..., Any]


@pytest.fixture
def agent(world: World, prefix: str) -> Agent:
    """An agent that is not started."""
    return world.agent(prefix)


@pytest.fixture
def run(manager: CommandManager, agent: Agent) -> Run:
    """Run a command on the agent, which is started with the first, and return its result."""

    def send(command_type: str, payload: Any = None, timeout: float = 30.0) -> Any:
        if repr(agent).endswith("not started>"):
            agent.start()
        return manager.send(agent.client_id, command_type, payload, timeout=timeout).result(40)

    return send


LIMITS = subprocesses.Limits.checked(60.0, 1000)


def test_each_is_off_until_it_is_put_on_the_agent(agent: Agent, run: Run) -> None:
    executors.ping(agent)
    assert run("ping")["pong"] is True
    for command_type in ("echo", "system.info", "exec_shell"):
        with pytest.raises(CommandFailed, match="unknown command type"):
            run(command_type)


def test_echo_returns_what_it_is_given(agent: Agent, run: Run) -> None:
    executors.echo(agent, "repeat")
    assert run("repeat", {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    assert run("repeat") == {}


def test_system_info_tells_about_the_machine(agent: Agent, run: Run) -> None:
    executors.system_info(agent)
    info = run("system.info")
    assert (info["pid"], info["cpus"]) == (os.getpid(), os.cpu_count())
    assert info["disk"]["total"] > 0
    assert info["lightlink"]


# Programs -------------------------------------------------------------------------------------------------------------


def test_a_program_is_run_and_its_end_told(agent: Agent, run: Run, tmp_path: Path) -> None:
    program = script(tmp_path / "program", 'echo "out $1 $2"', "cat", "echo err >&2", "exit 3")
    executors.exec_shell(agent, [str(program)])
    result = run("exec_shell", {"argv": [str(program), "a b", "$HOME;ls"], "stdin": "from stdin\n"})
    assert result.pop("duration") < 20
    # No shell has seen the arguments.
    assert result == {
        "exit_code": 3,
        "stdout": "out a b $HOME;ls\nfrom stdin\n",
        "stderr": "err\n",
        "truncated": False,
        "timed_out": False,
    }


def test_programs_are_found_on_path_when_the_agent_is_made(agent: Agent, run: Run) -> None:
    executors.exec_shell(agent, ["true", "false"])
    assert run("exec_shell", {"argv": ["true"]})["exit_code"] == 0
    assert run("exec_shell", {"argv": ["false"]})["exit_code"] == 1


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "missing argument 'argv'"),
        ({"argv": []}, "argv is empty"),
        ({"argv": "true"}, "argument 'argv'"),
        ({"argv": ["true", 1]}, "argument 'argv'"),
        ({"argv": ["ls"]}, "'ls' is not allowed; allowed are: true"),
        ({"argv": ["../bin/true"]}, "is not allowed"),
        ({"argv": [shutil.which("true")]}, "is not allowed"),
        ({"argv": ["true", "a\0b"]}, "null character"),
        ({"argv": ["true"], "timeout": 61}, "at most 60 s"),
        ({"argv": ["true"], "timeout": 0}, "above 0"),
        ({"argv": ["true"], "shell": True}, "unknown argument 'shell'"),
        ({"argv": ["true", "x" * 900_000]}, "cannot be started"),
    ],
    ids=lambda value: str(value)[:30].replace("\0", "0"),
)
def test_bad_use_is_rejected_with_the_reason(agent: Agent, run: Run, payload: Any, reason: str) -> None:
    executors.exec_shell(agent, ["true"])
    with pytest.raises(CommandFailed, match=reason) as caught:
        run("exec_shell", payload)
    assert caught.value.command.status_detail == "rejected"


@pytest.mark.parametrize(
    "options",
    [
        {"allow": []},
        {"allow": "ls"},
        {"allow": [""]},
        {"allow": ["nonesuch-program"]},
        {"allow": ["bin/true"]},
        {"allow": ["true"], "timeout": 0},
        {"allow": ["true"], "max_output": 0},
        {"allow": ["true"], "cwd": "/nonesuch"},
        {"allow": ["true"], "environment": {"PORT": 8080}},
        {"allow": ["true"], "environment": {"KEY": "a\0b"}},
        {"allow": ["true"], "environment": {"A=B": "c"}},
        {"allow": ["true"], "environment": {5: "c"}},
    ],
)
def test_settings_that_cannot_be_are_refused(agent: Agent, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        executors.exec_shell(agent, **options)


class Dog:
    """A watchdog that writes down what it is told of, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.told: list[str] = []
        self.fails = fails

    def begin(self, _: str) -> None:
        self.told.append("begin")

    def note_group(self, *_: Any) -> None:
        if self.fails == "note_group":
            raise OSError("too many open files")

    def end(self, _: str, group: int = 0) -> None:
        self.told.append(f"end {group}")


@pytest.mark.parametrize("fails", ["stdout", "stderr", "note_group"])
def test_a_program_ends_where_its_reader_cannot_start(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def start(function: Any, name: str) -> Any:
        if fails in name:
            raise RuntimeError("can't start new thread")
        return start_thread(function, name)

    dog = Dog(fails)
    monkeypatch.setattr(subprocesses, "watchdog", dog)
    monkeypatch.setattr(subprocesses, "start_thread", start)
    with pytest.raises((RuntimeError, OSError)):
        subprocesses.run_program(["sleep", "60"], "", Path.cwd(), os.environ, LIMITS, Event())
    begun, ended = dog.told
    assert begun == "begin"
    assert not alive(int(ended.split()[1]))


def test_the_watchdog_forgets_what_did_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    dog = Dog()
    monkeypatch.setattr(subprocesses, "watchdog", dog)
    for environment, error in (({"PORT": 8080}, TypeError), ({"A": "b\0"}, Rejected)):
        with pytest.raises(error):
            subprocesses.run_program(["true"], "", Path.cwd(), environment, LIMITS, Event())  # type: ignore[arg-type]
    assert dog.told == ["begin", "end 0"] * 2


def test_where_it_runs_and_what_it_sees_is_what_was_said(
    agent: Agent, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "password")
    program = script(tmp_path / "program", "pwd", "env")
    executors.exec_shell(agent, [str(program)], cwd=tmp_path, environment={"MODE": "test"})
    folder, *environment = run("exec_shell", {"argv": [str(program)]})["stdout"].splitlines()
    assert Path(folder).samefile(tmp_path)
    assert "MODE=test" in environment
    assert any(line.startswith("PATH=") for line in environment)
    assert not any("SECRET" in line for line in environment)


def test_long_output_is_cut_in_the_middle_and_says_so(agent: Agent, run: Run, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "echo begin", "yes | head -c 1000000", "echo end", "echo short >&2")
    executors.exec_shell(agent, [str(program)], max_output=1000)
    result = run("exec_shell", {"argv": [str(program)]})
    assert result["truncated"]
    assert result["stdout"].startswith("begin\ny\n")
    assert result["stdout"].endswith("y\nend\n")
    assert "[... 999010 bytes cut ...]" in result["stdout"]
    assert result["stderr"] == "short\n"


def test_output_need_not_be_text(agent: Agent, run: Run, tmp_path: Path) -> None:
    program = script(tmp_path / "program", r"printf '\377\000ok'")
    executors.exec_shell(agent, [str(program)])
    assert run("exec_shell", {"argv": [str(program)]})["stdout"] == "\ufffd\0ok"


@pytest.mark.parametrize("both", [True, False])
def test_output_large_as_json_is_cut_to_the_limit(agent: Agent, run: Run, tmp_path: Path, both: bool) -> None:
    noise = "echo begin; head -c 200000 /dev/zero; echo end"
    program = script(tmp_path / "program", noise, f"({noise}) >&2" if both else "echo short >&2", "exit 3")
    executors.exec_shell(agent, [str(program)])
    result = run("exec_shell", {"argv": [str(program)]})
    assert (result["exit_code"], result["truncated"]) == (3, True)
    for text in (result["stdout"], result["stderr"]) if both else (result["stdout"],):
        assert text.startswith("begin\n\0")
        assert text.endswith("\0end\n")
        cut = re.search(r"\[\.\.\. (\d+) bytes cut \.\.\.\]", text)
        assert cut
        assert int(cut[1]) + text.count("\0") == 200_000
        assert text.count("\0") > (70_000 if both else 140_000)
    assert both or result["stderr"] == "short\n"


def test_a_signal_is_a_negative_exit_code(agent: Agent, run: Run, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "kill -9 $$")
    executors.exec_shell(agent, [str(program)])
    assert run("exec_shell", {"argv": [str(program)]})["exit_code"] == -9


# Ends -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A program with a child, both of which write their process ids into a file and then sleep for a minute."""
    ids = tmp_path / "ids"
    return script(
        tmp_path / "program", f"sleep 60 & echo $$ $! > {ids}.new", f"mv {ids}.new {ids}", "echo up", "sleep 60", "wait"
    )


def process_ids(family: Path) -> list[int]:
    ids = family.with_name("ids")
    eventually(ids.exists, timeout=30)
    return [int(text) for text in ids.read_text().split()]


def assert_dead(ids: list[int]) -> None:
    eventually(lambda: not any(alive(pid) for pid in ids))


def test_a_cancel_ends_the_program_and_its_children(manager: CommandManager, agent: Agent, family: Path) -> None:
    executors.exec_shell(agent, [str(family)])
    agent.start()
    promise = manager.send(agent.client_id, "exec_shell", {"argv": [str(family)]})
    ids = process_ids(family)
    manager.cancel(promise.command_id)
    with pytest.raises(CommandCancelled):
        promise.result(20)
    assert_dead(ids)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid here")
def test_a_cancel_ends_what_left_the_session_too(manager: CommandManager, agent: Agent, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    program = script(
        tmp_path / "program", f"setsid sh -c 'echo $$ > {ids}.new; mv {ids}.new {ids}; sleep 60' &", "sleep 60"
    )
    executors.exec_shell(agent, [str(program)])
    agent.start()
    promise = manager.send(agent.client_id, "exec_shell", {"argv": [str(program)]})
    left = process_ids(program)
    manager.cancel(promise.command_id)
    with pytest.raises(CommandCancelled):
        promise.result(20)
    assert_dead(left)


def test_an_overdue_command_s_program_is_ended(manager: CommandManager, agent: Agent, family: Path) -> None:
    executors.exec_shell(agent, [str(family)])
    agent.start()
    promise = manager.send(agent.client_id, "exec_shell", {"argv": [str(family)]}, timeout=2)
    ids = process_ids(family)
    with pytest.raises(CommandTimeout):
        promise.result(20)
    assert_dead(ids)


def test_a_program_that_takes_too_long_keeps_its_output(agent: Agent, run: Run, family: Path) -> None:
    executors.exec_shell(agent, [str(family)], timeout=30)
    result = run("exec_shell", {"argv": [str(family)], "timeout": 0.5})
    assert (result["timed_out"], result["exit_code"], result["stdout"]) == (True, -15, "up\n")
    assert_dead(process_ids(family))


def test_a_program_that_ignores_the_polite_word_is_killed(
    agent: Agent, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlink.commands.subprocesses._GRACE_SECONDS", 0.1)
    program = script(tmp_path / "program", "trap '' TERM", "while :; do sleep 1; done")
    executors.exec_shell(agent, [str(program)])
    assert run("exec_shell", {"argv": [str(program)], "timeout": 0.3})["exit_code"] == -9


def test_children_left_behind_end_with_the_program(agent: Agent, run: Run, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    program = script(tmp_path / "program", f"sleep 60 & echo $! > {ids}", "echo done")
    executors.exec_shell(agent, [str(program)])
    result = run("exec_shell", {"argv": [str(program)]})
    assert (result["exit_code"], result["stdout"]) == (0, "done\n")
    assert_dead([int(ids.read_text())])


def test_a_child_that_escaped_does_not_hold_the_result_up(agent: Agent, run: Run, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    escape = tmp_path / "escape.py"
    escape.write_text(
        f"import os, time\nos.setsid()\nopen('{ids}.new', 'w').write(str(os.getpid()))\n"
        f"os.rename('{ids}.new', '{ids}')\ntime.sleep(60)\n"
    )
    wait = f"while ! test -f {ids}; do sleep 0.01; done"
    program = script(tmp_path / "program", f"{sys.executable} {escape} &", wait, "echo done")
    executors.exec_shell(agent, [str(program)])
    started = time.monotonic()
    result = run("exec_shell", {"argv": [str(program)]})
    assert (result["exit_code"], result["stdout"]) == (0, "done\n")
    assert time.monotonic() - started < 30
    escaped = int(ids.read_text())
    assert alive(escaped)
    os.kill(escaped, 9)
