"""What peers say is shown, and does nothing to the terminal."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from helpers.process import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lightlink
from lightlink.cli.terminal.options import print_data
from lightlink.commands import Agent, CommandManager
from lightlink.protocol.text import visible, visible_json
from lightlink.runs import Orchestrator, Plan, Step

EVIL = "\x1b]0;owned\x07\x1b[2J\n\r\x7f\x9b31m\u202egnp.exe\u2066"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert visible(text).isprintable() or not UNSAFE.search(visible(text))
    assert "\n" not in visible(text)


@given(st.dictionaries(st.text(), st.text()))
def test_json_says_the_same_with_escapes(value: dict[str, str]) -> None:
    assert json.loads(visible_json(json.dumps(value, ensure_ascii=False))) == value


def test_every_line_of_the_cli_goes_through_one_place() -> None:
    raw = {
        "certs.py": 1,
        "fleet.py": 1,
        "link.py": 1,
        "state.py": 1,
        "processes/agent.py": 1,
        "processes/service.py": 1,
        "terminal/printing.py": 1,
    }  # configuration; bytes as they are
    folder = ROOT / "lightlink" / "cli"
    counts = {str(file.relative_to(folder)): file.read_text().count("click.echo(") for file in folder.rglob("*.py")}
    assert {file: count for file, count in counts.items() if count} == raw


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_labels_types_and_errors_of_peers_print_harmlessly(
    url: str, prefix: str, capsys: pytest.CaptureFixture[str], flag: tuple[str, ...]
) -> None:
    from lightlink.cli import main

    with lightlink.connect(url) as client, CommandManager(client) as manager:
        agent = Agent(prefix, client, labels={"evil": EVIL})

        @agent.command(EVIL)
        def fail() -> None:
            raise ValueError(EVIL)

        with agent:
            promise = manager.send(prefix, EVIL, issued_by=EVIL)
            promise.wait(30)
            for arguments in (
                ("clients",),
                ("command", "list"),
                ("command", "get", promise.command_id),
                ("command", "audit", promise.command_id),
                ("command", "send", prefix, EVIL),
            ):
                main([*arguments, f"--url={url}", *flag])
    printed = "".join(capsys.readouterr())
    assert "owned" in printed
    assert UNSAFE.search(printed) is None


def test_a_table_of_a_run_prints_reasons_harmlessly(url: str, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    from lightlink.cli import main

    with lightlink.connect(url) as client, Orchestrator(client, work=False) as orchestrator:
        run = orchestrator.start(Plan(prefix, targets=[prefix], steps=[Step("one", "x")]), issued_by="me")
        run.cancel(EVIL)
        assert main(["runs", "show", run.run_id, f"--url={url}"]) == 0
    printed = capsys.readouterr().out
    assert "owned" in printed
    assert UNSAFE.search(printed) is None


@given(st.recursive(st.text() | st.none() | st.floats() | st.integers(-(2**63), 2**63 - 1), st.lists))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_laid_out_says_the_same_harmlessly(capsys: pytest.CaptureFixture[str], value: Any) -> None:
    print_data(value, as_json=True)
    line = capsys.readouterr().out
    print_data(value, as_json=False)
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(line)
    assert UNSAFE.search(printed) is None


def test_a_command_type_does_not_forge_a_line_of_the_log(
    url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with lightlink.connect(url) as client, CommandManager(client) as manager:
        agent = Agent(prefix, client)

        @agent.command("x\nERROR forged")
        def fail() -> None:
            raise ValueError("no")

        with agent:
            manager.send(prefix, "x\nERROR forged").wait(30)
    assert [record for record in caplog.records if "\nERROR forged" in record.getMessage()] == []
