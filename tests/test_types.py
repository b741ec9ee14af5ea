"""What ``mypy --strict`` makes of a program that uses the library."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from helpers.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
    from concurrent.futures import Future
    from dataclasses import dataclass
    from typing import Any

    import lightlink
    from lightlink.middleware import Proceed
    from typing_extensions import assert_type

    @dataclass
    class Point:
        x: int

    client = lightlink.connect()
    service = lightlink.Service("math", client)
    agent = lightlink.Agent("pump-1", client)

    @service.rpc
    def add(a: int, b: int) -> int:
        return a + b

    @service.rpc("getPoint", idempotent=True)
    def get_point(request: lightlink.Request) -> Point:
        return Point(1)

    @service.on("events.user")
    def on_event(message: lightlink.Message) -> None: ...

    @service.on_file
    def on_file(info: lightlink.FileInfo) -> str:
        return info.name

    @service.on_file(concurrency=2)
    def on_file_too(info: lightlink.FileInfo) -> str:
        return info.name

    assert_type(add(1, 2), int)
    assert_type(get_point(lightlink.Request("math", "getPoint", {}, None, client)), Point)
    assert_type(on_file(client.file_info("id")), str)
    assert_type(on_file_too(client.file_info("id")), str)

    assert_type(client.call("math", "add", {"a": 1, "b": 2}), Any)
    assert_type(client.call("math", "getPoint", timeout=1, returns=Point), Point)
    assert_type(client.call("math", "getPoints", returns=list[Point]), list[Point])
    assert_type(client.submit("math", "add"), Future[Any])
    assert_type(client.submit("math", "getPoint", returns=Point), Future[Point])
    assert_type(client.state("points", value_type=Point).get("a"), Point)
    assert_type(client.service("math", timeout=1).add(a=1, b=2), Any)

    def timing(call: lightlink.Call, proceed: Proceed) -> Any:
        return proceed(call)

    lightlink.connect(middleware=[timing])
    lightlink.Service("math", middleware=[timing]).register("add", add, middleware=[timing])
    client.publish("a", 1, headers={"Tenant": "acme", "Via": ["a", "b"]})
    assert_type(client.wait_for("math", "add").methods["add"].stats.requests, int)
    assert_type(service.test_client().call("getPoint", returns=Point), Point)

    @client.on("events.>", queue="billing")
    def on_any(message: lightlink.Message) -> None: ...

    @agent.command("restart", idempotent=True)
    def restart(context: lightlink.CommandContext, delay_seconds: int = 0) -> bool:
        return context.cancelled.is_set()

    @agent.on_message("notice")
    def on_message(message: lightlink.AgentMessage) -> None: ...

    class Executor:
        def execute(self, command_type: str, payload: Any) -> Any: ...

    class AskingExecutor:
        def execute(self, command_type: str, payload: Any, context: lightlink.CommandContext) -> Any: ...

    lightlink.Agent("pump-2", client, executor=Executor())
    lightlink.Agent("pump-3", client, executor=AskingExecutor())
    with lightlink.CommandManager(client) as manager:
        assert_type([command.status for command in manager.list(status="failed")][0], StatusName)
"""


@pytest.mark.timeout(180)
def test_a_strict_program_has_the_types_it_says(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from lightlink.commands.model import StatusName\n" + textwrap.dedent(PROGRAM))
    # Without the cache of the project, whose settings are not those of a user.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    done = subprocess.run(
        [*command, str(program)],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
