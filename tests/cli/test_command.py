"""``lightlink command``, ``agent`` and ``clients``."""

from __future__ import annotations

import io
import json
import signal
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.commands import CommandContext, StoreOptions, Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython, StartServer

    from lightlink.commands import Agent, CommandManager

CLI = """
    import sys
    from lightlink.cli import main
    sys.exit(main())
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli(Protocol):
    def __call__(self, *args: str, stdin: bytes = b"") -> Result: ...


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[Cli]:
    """Run ``lightlink`` in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*args: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return Result(main([*args, f"--url={url}"]), *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def agent(world: World, prefix: str) -> Agent:
    """An agent that runs."""
    agent = world.agent(prefix, labels={"test": prefix})
    agent.register("add", lambda x, y=1: {"sum": x + y})
    agent.register("fail", lambda: 1 / 0)

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        context.progress(0.5, "waiting")
        context.cancelled.wait(30)
        context.check()

    return agent.start()


# send -----------------------------------------------------------------------------------------------------------------


def test_send_prints_the_result(cli: Cli, agent: Agent) -> None:
    result = cli("command", "send", agent.client_id, "add", '{"x": 1}', "--json")
    assert (result.code, result.data) == (Exit.DONE, [{"sum": 2}])
    assert result.err.startswith("sent: ")


def test_send_reads_the_payload_from_standard_input(cli: Cli, agent: Agent) -> None:
    result = cli("command", "send", agent.client_id, "add", "-", "--json", stdin=b'{"x": 4}')
    assert result.data == [{"sum": 5}]


def test_what_failed_is_one_line_and_exit_code_1(cli: Cli, agent: Agent) -> None:
    for arguments, text in ((["fail"], "ZeroDivisionError"), (["add", "{}"], "missing argument 'x'")):
        result = cli("command", "send", agent.client_id, *arguments)
        assert result.code == Exit.FAILED
        assert text in result.err.splitlines()[-1]
        assert result.out == ""


def test_what_timed_out_is_exit_code_4(cli: Cli, prefix: str) -> None:
    result = cli("command", "send", prefix, "add", "--timeout=0.1")
    assert result.code == Exit.TIMEOUT
    assert "timed out (delivery_timeout)" in result.err


def test_an_agent_that_is_not_there_is_exit_code_5_if_it_must_be(cli: Cli, prefix: str) -> None:
    result = cli("command", "send", prefix, "add", "--online")
    assert (result.code, result.err) == (Exit.NOT_NOW, f"error: client not connected: {prefix}\n")


@pytest.mark.parametrize("arguments", [["no.token", "add"], ["a", "add", "{"], ["a", "add", "--timeout=0"]])
def test_a_mistake_is_a_usage_error(cli: Cli, arguments: list[str]) -> None:
    assert cli("command", "send", *arguments).code == Exit.USAGE


def test_without_waiting_the_id_is_printed_for_later(cli: Cli, prefix: str, world: World) -> None:
    sent = cli("command", "send", prefix, "add", '{"x": 1}', "--no-wait", "--priority=3", f"--key={prefix}")
    command_id = sent.out.strip()
    again = cli("command", "send", prefix, "add", "--no-wait", f"--key={prefix}", "--json")
    assert again.data == [{"command_id": command_id}]
    (pending,) = cli("command", "get", command_id, "--json").data
    assert (pending["status"], pending["priority"], pending["payload"]) == ("pending", 3, {"x": 1})
    agent = world.agent(prefix)
    agent.register("add", lambda x: x)
    agent.start()
    (ended,) = cli("command", "get", command_id, "--wait=60", "--json").data
    assert (ended["status"], ended["result"]) == ("completed", 1)
    assert ended["issued_by"].startswith("cli:")


# Looking --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["send", "{}", "wait"], ["batch", "wait", "--to", "{}"]])
def test_ctrl_c_ends_the_waiting_and_not_the_command(
    python: StartPython, manager: CommandManager, agent: Agent, url: str, arguments: list[str]
) -> None:
    process = python(CLI, "command", *(each.format(agent.client_id) for each in arguments), "--url", url)
    (command,) = eventually(lambda: manager.list(agent.client_id, "executing"))
    eventually(lambda: process.stderr)
    process.signal(signal.SIGINT)
    done = process.wait()
    assert (done.returncode, done.stdout.strip(), len(done.stderr.split())) == (130, "", 2)
    assert manager.get(command.command_id).status == "executing"
    manager.cancel(command.command_id)


def test_a_server_that_is_gone_is_one_line(fresh_server: StartServer, capsys: pytest.CaptureFixture[str]) -> None:
    server = fresh_server()
    server.stop()
    before = signal.getsignal(signal.SIGTERM)
    for arguments in (["send", "a", "b"], ["list"], ["batch", "b", "--to", "a"]):
        assert main(["command", *arguments, f"--url={server.url}"]) == Exit.NOT_CONNECTED
        assert capsys.readouterr().err.count("\n") == 1
    signal.signal(signal.SIGTERM, before)


def test_list_prints_pages(cli: Cli, manager: CommandManager, agent: Agent) -> None:
    for number in range(5):
        manager.send(agent.client_id, "add", {"x": number}).result(30)
    manager.send(agent.client_id, "fail").wait(30)
    page = cli("command", "list", f"--client={agent.client_id}", "--status=completed", "--limit=3", "--json")
    assert [each["result"] for each in page.data] == [{"sum": 5}, {"sum": 4}, {"sum": 3}]
    after = page.err.split("--after=")[1].strip()
    rest = cli("command", "list", f"--client={agent.client_id}", "--status=completed", f"--after={after}")
    assert [line.split("  ")[-1] for line in rest.out.splitlines()] == ['{"sum":2}', '{"sum":1}']
    assert rest.err == ""
    (failed,) = cli("command", "list", f"--client={agent.client_id}", "--type=fail").out.splitlines()
    assert "failed  ZeroDivisionError" in failed
    assert cli("command", "list", f"--client={agent.client_id}", "--since=2999-01-01").out == ""


def test_get_of_what_there_is_not_is_one_line(cli: Cli) -> None:
    result = cli("command", "get", "nonesuch")
    assert (result.code, result.err) == (Exit.FAILED, "error: Command not found: nonesuch\n")


def test_watch_follows_a_command_to_its_end(
    cli: Cli, python: StartPython, manager: CommandManager, agent: Agent, url: str
) -> None:
    promise = manager.send(agent.client_id, "wait")
    eventually(lambda: promise.command().progress)
    watch = python(CLI, "command", "watch", promise.command_id, f"--url={url}")
    assert "executing" in watch.wait_line("")
    manager.cancel(promise.command_id)
    finished = watch.wait()
    assert finished.returncode == 0
    assert "failed (cancelled)" in finished.stdout.splitlines()[-1]


def test_watch_follows_all_commands(python: StartPython, manager: CommandManager, agent: Agent, url: str) -> None:
    watch = python(CLI, "command", "watch", f"--client={agent.client_id}", "--json", f"--url={url}")
    eventually(lambda: "watching" in watch.stderr, timeout=30)
    promise = manager.send(agent.client_id, "add", {"x": 1})
    while (change := json.loads(watch.wait_line("")))["status"] != "completed":
        assert change["command_id"] == promise.command_id
    assert change["result"] == {"sum": 2}
    watch.signal(signal.SIGINT)
    assert watch.wait().returncode == Exit.INTERRUPTED


def test_watch_gives_up_in_time(cli: Cli, prefix: str) -> None:
    assert cli("command", "watch", f"--client={prefix}", "--timeout=0.1").code == Exit.TIMEOUT


def test_cancel_cancels(cli: Cli, manager: CommandManager, prefix: str) -> None:
    promise = manager.send(prefix, "add")
    result = cli("command", "cancel", promise.command_id, "--reason=not today")
    assert result.code == Exit.DONE
    assert "failed (cancelled)  cancelled: not today" in result.out
    again = cli("command", "cancel", promise.command_id)
    assert (again.code, again.out) == (Exit.FAILED, "")
    assert "has ended already" in again.err


def test_audit_prints_what_happened(cli: Cli, manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "add", {"x": 1}, issued_by="alice")
    promise.result(30)
    eventually(lambda: len(list(manager.audit(promise.command_id))) == 3)
    lines = cli("command", "audit", promise.command_id).out.splitlines()
    assert ["add  by alice" in lines[0], "executing" in lines[1], "completed" in lines[2]] == [True] * 3
    data = cli("command", "audit", promise.command_id, "--json").data
    assert [entry["kind"] for entry in data] == ["request", "status", "status"]
    nothing = cli("command", "audit", "nonesuch")
    assert (nothing.code, nothing.out, nothing.err) == (1, "", "error: the audit holds nothing of nonesuch\n")


def test_a_time_at_the_calendars_end_is_an_error_or_an_answer(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as patch:
            for zone, instant in (("Etc/GMT-14", "0001-01-01"), ("Etc/GMT+12", "9999-12-31T23:59:59")):
                patch.setenv("TZ", zone)
                time.tzset()
                for command in ("list", "audit"):
                    refused = cli("command", command, f"--since={instant}")
                    assert (refused.code, "out of range" in refused.err) == (Exit.USAGE, True)
    finally:
        time.tzset()


def test_a_command_dated_impossibly_is_dated_by_the_server(cli: Cli, manager: CommandManager, prefix: str) -> None:
    manager._store.ensure_consumers([prefix])
    body = {
        "command_id": "c",
        "client_id": prefix,
        "command_type": "x",
        "timeout": 600,
        "created_at": "0001-01-01T00:00:00",
    }
    manager._connection.request(f"ll.commands.{prefix}.c".encode(), json.dumps(body).encode(), 5.0)
    printed = cli("command", "list", f"--client={prefix}").out
    assert printed.startswith("20")
    assert printed.endswith(f"  {prefix}  x  c  pending\n")


def test_to_watch_a_client_that_cannot_be_is_a_usage_error(cli: Cli) -> None:
    assert cli("command", "watch", "--client=no.token", "--timeout=0.1").code == Exit.USAGE


# batch ----------------------------------------------------------------------------------------------------------------


def test_batch_prints_each_end_and_the_counts(cli: Cli, agent: Agent, prefix: str) -> None:
    result = cli("command", "batch", "add", '{"x": 1}', f"--label=test={prefix}", "--json")
    assert result.code == Exit.DONE
    assert [(each["client_id"], each["result"]) for each in result.data] == [(agent.client_id, {"sum": 2})]
    assert result.err.splitlines()[-1] == "ended: 1 completed"


def test_a_batch_in_which_one_failed_is_exit_code_1(cli: Cli, agent: Agent, prefix: str) -> None:
    to = [f"--to={agent.client_id}", f"--to={prefix}-offline"]
    result = cli("command", "batch", "add", '{"x": 1}', *to, "--timeout=6")
    assert result.code == Exit.FAILED
    assert result.err.splitlines()[-1] == "ended: 1 completed, 1 timeout"
    assert len(result.out.splitlines()) == 2


@pytest.mark.parametrize("arguments", [[], ["--to=a", "--label=b=c"], ["--label=b"], ["--label==c"]])
def test_a_batch_needs_to_know_whom_it_is_for(cli: Cli, arguments: list[str]) -> None:
    assert cli("command", "batch", "add", *arguments).code == Exit.USAGE


# agent and clients ----------------------------------------------------------------------------------------------------


def test_clients_lists_who_is_online(cli: Cli, agent: Agent, prefix: str) -> None:
    (presence,) = cli("clients", f"--label=test={prefix}", "--json").data
    assert (presence["client_id"], presence["instance"]) == (agent.client_id, agent.instance)
    (line,) = cli("clients", f"--label=test={prefix}").out.splitlines()
    assert line.startswith(f"{agent.client_id}  since ")
    assert line.endswith(f"test={prefix}")
    assert cli("clients", "--label=test=nobody").out == ""


def test_agent_run_runs_the_agent_of_a_module(
    python: StartPython, tmp_path: Path, manager: CommandManager, url: str, prefix: str
) -> None:
    (tmp_path / "plant.py").write_text(
        textwrap.dedent(
            f"""
            import lightlink
            agent = lightlink.Agent({prefix!r}, "nats://127.0.0.1:1")

            @agent.command("add")
            def add(x: int) -> int:
                return x + 1
            """
        )
    )
    code = "import os, sys; os.chdir(sys.argv.pop(1)); from lightlink.cli import main; sys.exit(main())"
    process = python(code, tmp_path, "agent", "run", "plant", f"--url={url}")
    assert process.wait_line(f"agent {prefix} takes commands on {url}")
    assert manager.send(prefix, "add", {"x": 1}).result(30) == 2
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == 0
    assert [each for each in manager.clients() if each.client_id == prefix] == []
    wrong = python(code, tmp_path, "agent", "run", "plant:other", f"--url={url}").wait()
    assert wrong.returncode == Exit.USAGE
    assert "plant has no 'other'; its agents: agent" in wrong.stderr


def test_a_second_agent_is_one_line(
    fresh_server: StartServer, python: StartPython, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "plant.py").write_text(f"import lightlink\nagent = lightlink.Agent({prefix!r})\n")
    code = "import os, sys; os.chdir(sys.argv.pop(1)); from lightlink.cli import main; sys.exit(main())"
    options = StoreOptions(heartbeat=1.0)  # who gives no sign of life for three of them is taken for dead
    with World(fresh_server().url, options) as world:
        world.agent(prefix).start()
        result = python(code, tmp_path, "agent", "run", "plant", f"--url={world.url}").wait()
    assert result.returncode == Exit.FAILED
    assert result.stderr.startswith(f"error: client id {prefix!r} is in use by a live agent")
    assert len(result.stderr.splitlines()) == 1


def test_a_command_is_taken_back(cli: Cli, world: World, prefix: str) -> None:
    agent = world.agent(f"{prefix}-undo")
    agent.register("set", lambda: Undoable("set", undo={}), undo="restore")
    agent.register("restore", lambda: "restored")
    agent.start()
    sent = cli("command", "send", agent.client_id, "set").err.split()[-1]
    assert "restored" in cli("command", "undo", sent).out
    assert "cannot be taken back" in cli("command", "undo", sent).err


# message, broadcast ---------------------------------------------------------------------------------------------------


def test_messages_reach_agents_that_are_online(cli: Cli, world: World, prefix: str) -> None:
    got: list[Any] = []
    agent = world.agent(prefix)
    agent.on_message("note")(lambda message: got.append(message.payload))
    agent.on_message("bad")(lambda message: 1 / 0)
    agent.start()
    sent = cli("message", prefix, "note", '{"n": 1}', "--wait")
    assert (sent.code, sent.out) == (Exit.DONE, f"1 of 1 have it\n{prefix}\n")
    assert cli("message", prefix, "note", "-", "--wait", stdin=b"[2]").code == Exit.DONE
    assert got == [{"n": 1}, [2]]
    failed = cli("message", prefix, "bad", "--wait")
    assert (failed.code, "ZeroDivisionError" in failed.err) == (Exit.FAILED, True)
    (told,) = cli("broadcast", "note", "3", "--json").data
    assert prefix in told["reached"]
    assert cli("message", "nobody", "note").code == Exit.NOT_NOW
    assert cli("message", prefix, "note", "{").code == Exit.USAGE
