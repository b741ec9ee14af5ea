"""Managers and agents whose clocks are an hour apart: deadlines count in the server's time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.commands.manager.expiry import Expiry
from lightlink.commands.manager.sweep import Sweeper
from lightlink.connection.clock import ServerClock
from lightlink.errors import CommandTimeout
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from conftest import StartPython
    from helpers.commands import World

    from lightlink.commands import CommandManager

HOUR = 3600.0

# The clock that the library asks for the time is wrong by so many seconds, from before it is imported.
SHIFT = """
    import logging, sys, time

    shift, right = float(sys.argv[1]), time.time
    time.time = lambda: right() + shift
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
"""

AGENT = (
    SHIFT
    + """
    from lightlink.commands import Agent, CommandContext

    agent = Agent(sys.argv[3], sys.argv[2])

    @agent.command("left")
    def left(context: CommandContext) -> float:
        return context.remaining()

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        context.cancelled.wait(60)
        context.check()

    with agent:
        print("ready", flush=True)
        sys.stdin.readline()
"""
)

MANAGER = (
    SHIFT
    + """
    import lightlink
    from lightlink.commands import CommandManager

    with lightlink.connect(sys.argv[2]) as client, CommandManager(client) as manager:
        promises = [manager.send(sys.argv[3], "left", timeout=100), manager.send(sys.argv[3], "wait", timeout=2)]
        print("left", promises[0].result(60))
        command = promises[1].wait(60)
        print("ended", command.status, command.status_detail, command.error)
        unheard = manager.send("nobody-" + sys.argv[3], "left", timeout=0.1).wait(60)
        print("unheard", unheard.status_detail, unheard.error)
        batch = manager.send_many([sys.argv[3]], "left", timeout=100)
        print("batch", batch.wait(60), len(manager.list(batch_id=batch.batch_id)))
"""
)


@pytest.mark.parametrize(
    ("manager_shift", "agent_shift"), [(HOUR, 0), (-HOUR, 0), (0, HOUR), (0, -HOUR), (HOUR, -HOUR)]
)
def test_commands_end_in_time_though_clocks_are_an_hour_apart(
    python: StartPython, url: str, prefix: str, manager_shift: float, agent_shift: float
) -> None:
    agent = python(AGENT, agent_shift, url, prefix)
    agent.wait_line("ready")
    done = python(MANAGER, manager_shift, url, prefix).wait()
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if not line.startswith("lightlink"))
    assert 60 < float(told["left"]) <= 100
    assert told["ended"] == "timeout execution_timeout it ran longer than its 2 s"
    assert told["unheard"] == "delivery_timeout no agent took it within 0.1 s"
    assert told["batch"] == "True 1"
    for shift, printed in ((manager_shift, done.stdout), (agent_shift, agent.stdout)):
        said = f"this clock is 3600 s {'ahead of' if shift > 0 else 'behind'} the server's"
        assert (said in printed) == bool(shift)


@pytest.mark.parametrize("apart", [-HOUR, HOUR])
def test_a_request_with_a_wrong_date_counts_from_its_storing(
    world: World, manager: CommandManager, prefix: str, apart: float
) -> None:
    body = {
        "command_id": prefix,
        "client_id": prefix,
        "command_type": "left",
        "timeout": 100.0,
        "created_at": (datetime.now(timezone.utc) + timedelta(seconds=apart)).isoformat(),
    }
    manager._store.ensure_consumers([prefix])
    subject = subjects.command_request(prefix, prefix).encode()
    manager._connection.request(subject, codec.encode_json(body), 5)
    Sweeper(manager._store, Expiry(manager._store, "sweeper")).sweep()
    assert manager.get(prefix).status == "pending"
    agent = world.agent(prefix)
    agent.register("left", lambda: "ran")
    agent.start()
    assert manager.promise(prefix).result(30) == "ran"


def test_a_manager_with_a_wrong_clock_sweeps_only_what_is_over(
    python: StartPython, url: str, manager: CommandManager, prefix: str
) -> None:
    waiting = manager.send(prefix, "left", timeout=600)
    over = manager.send(prefix, "left", timeout=0.01)
    code = """
    import lightlink
    from lightlink.commands import CommandManager

    with lightlink.connect(sys.argv[2]) as client, CommandManager(client, name="fast", sweep_interval=0.1) as manager:
        print("ready", flush=True)
        sys.stdin.readline()
    """
    sweeping = python(SHIFT + code, HOUR, url)
    sweeping.wait_line("ready")
    with pytest.raises(CommandTimeout):
        over.result(30)
    eventually(lambda: manager.get(over.command_id).ended)
    assert waiting.status == "pending"
    assert manager._store.read_status(prefix, waiting.command_id) == (None, 0)


def test_a_clock_is_believed_as_far_as_the_server_allows() -> None:
    clock = ServerClock()
    before = clock.timestamp()
    instant = before - clock._base  # of `time.monotonic`
    told = datetime.fromtimestamp(before, timezone.utc)
    clock.learn(told, instant - 1, instant + 1)
    assert clock.timestamp() - before == pytest.approx(0, abs=0.5)
    clock.learn(told + timedelta(seconds=HOUR), instant - 1, instant + 1)
    assert clock.timestamp() - before == pytest.approx(HOUR - 1, abs=0.5)
    clock.learn(told, instant - 1, instant + 1)
    assert clock.timestamp() - before == pytest.approx(1, abs=0.5)
