from __future__ import annotations

import re
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Protocol

import pytest
from helpers.process import alive
from helpers.waiting import eventually

import lightlink
from lightlink.cli.terminal.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython
    from helpers.process import PythonProcess

CLI = """
    import os, sys
    os.chdir(sys.argv.pop(1))
    from lightlink.cli import main
    sys.exit(main())
"""


class Run(Protocol):
    def __call__(self, *args: str) -> PythonProcess: ...


@pytest.fixture
def run(python: StartPython, tmp_path: Path) -> Run:
    """Start ``lightlink run`` in the folder ``tmp_path``."""
    return lambda *args: python(CLI, tmp_path, "run", *args)


@pytest.fixture
def module(tmp_path: Path, prefix: str, url: str) -> Path:
    """A module ``served`` with a service named by the test's prefix, whose method ``answer`` returns 1."""
    path = tmp_path / "served.py"
    path.write_text(code(prefix, url, answer="1"))
    return path


def code(name: str, url: str, answer: str) -> str:
    return textwrap.dedent(f"""
        import lightlink

        service = lightlink.Service({name!r}, {url!r})
        number = 1

        @service.rpc
        def answer() -> int:
            return {answer}

        @service.rpc
        def slow(subject: str, request: lightlink.Request) -> str:
            with request.client.subscribe(subject) as goes_on:
                request.client.publish("started." + subject)
                goes_on.get(timeout=30)
            return "done"
    """)


def serving(process: PythonProcess, name: str) -> int:
    """Wait until it serves, and return the id of the process that does."""
    line = process.wait_line(f"serving {name} on ")
    match = re.search(r"process (\d+)", line)
    assert match is not None
    return int(match[1])


def error_of(process: PythonProcess) -> str:
    """Return the one line with which it ended as a bad command line would."""
    result = process.wait()
    assert result.returncode in (Exit.FAILED, Exit.USAGE)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("target", ["served:service", "served"])
def test_run_serves_until_it_is_asked_to_stop(run: Run, url: str, prefix: str, target: str) -> None:
    process = run(target)
    serving(process, prefix)
    with lightlink.connect(url) as client:
        assert client.call(prefix, "answer") == 1
        process.signal(signal.SIGTERM)
        assert process.wait().returncode == Exit.DONE
        with pytest.raises(lightlink.ServiceUnavailable):
            client.call(prefix, "answer")


@pytest.mark.usefixtures("module")
def test_ctrl_c_lets_run_finish_what_it_holds(run: Run, url: str, prefix: str) -> None:
    process = run("served:service")
    serving(process, prefix)
    with lightlink.connect(url) as client, client.subscribe(f"started.{prefix}") as started:
        client.flush()
        answer = client.submit(prefix, "slow", {"subject": prefix}, timeout=30)
        started.get(timeout=30)
        process.signal_group(signal.SIGINT)
        eventually(lambda: "SIGINT received" in process.stderr)
        client.publish(prefix)
        assert answer.result(timeout=30) == "done"
    result = process.wait()
    assert result.returncode == Exit.DONE
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("module")
def test_a_second_ctrl_c_ends_run_without_waiting(run: Run, url: str, prefix: str) -> None:
    process = run("served:service", "--drain-timeout=30")
    serving(process, prefix)
    with lightlink.connect(url) as client, client.subscribe(f"started.{prefix}") as started:
        client.flush()
        answer = client.submit(prefix, "slow", {"subject": prefix}, timeout=30)
        started.get(timeout=30)
        process.signal_group(signal.SIGINT)
        eventually(lambda: "SIGINT received" in process.stderr)
        process.signal_group(signal.SIGINT)
        assert process.wait(timeout=30).returncode == Exit.INTERRUPTED
        answer.cancel()


def test_the_command_line_wins_over_the_address_in_the_code(run: Run, tmp_path: Path, url: str, prefix: str) -> None:
    (tmp_path / "served.py").write_text(code(prefix, "nats://127.0.0.1:1", answer="1"))
    process = run("served:service", f"--url={url}")
    serving(process, prefix)
    with lightlink.connect(url) as client:
        assert client.call(prefix, "answer") == 1


def test_an_address_for_a_service_with_its_own_client_is_refused(
    run: Run, tmp_path: Path, url: str, prefix: str
) -> None:
    (tmp_path / "served.py").write_text(
        f"import lightlink\nservice = lightlink.Service({prefix!r}, lightlink.connect({url!r}))\n"
    )
    assert prefix in error_of(run("served", f"--url={url}"))


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("absent:service", "'absent'"),
        ("served.sub:service", "'served.sub'"),
        ("served:absent", "its services: service"),
        ("served:number", "is a int"),
        ("served.py:service", "served.py"),
        ("./served:service", "./served"),
    ],
)
def test_a_target_that_is_no_service_is_one_line(run: Run, target: str, words: str) -> None:
    assert words in error_of(run(target))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import absent_module", "'absent_module'"),
        ("def", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(run: Run, tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "served.py").write_text(f"\n{source}\n")
    error = error_of(run("served:service"))
    assert words in error
    assert f"{tmp_path / 'served.py'}:2" in error


def test_a_module_that_runs_its_service_is_told_how_not_to(run: Run, tmp_path: Path, url: str, prefix: str) -> None:
    # As `service.run()` leaves it when it was asked to stop.
    (tmp_path / "served.py").write_text(code(prefix, url, answer="1") + "service.start().stop()\n")
    assert "put service.run() under if __name__ == '__main__':" in error_of(run("served"))


def test_run_without_a_server_says_so_and_ends(run: Run, tmp_path: Path, prefix: str) -> None:
    (tmp_path / "served.py").write_text(code(prefix, "nats://127.0.0.1:1", answer="1"))
    result = run("served:service", "--wait=0").wait()
    assert result.returncode == Exit.NOT_CONNECTED
    assert "127.0.0.1:1" in result.stderr


def test_run_waits_for_its_server(run: Run, tmp_path: Path, prefix: str) -> None:
    (tmp_path / "served.py").write_text(code(prefix, "nats://127.0.0.1:1", answer="1"))
    waiting = run("served:service")
    eventually(lambda: "no server yet, waiting for one" in waiting.stderr)
    waiting.signal(signal.SIGTERM)
    assert waiting.wait().returncode == 128 + signal.SIGTERM


# --reload


def test_a_changed_file_starts_the_service_anew(run: Run, module: Path, url: str, prefix: str) -> None:
    process = run("served:service", "--reload")
    first = serving(process, prefix)
    with lightlink.connect(url) as client:
        assert client.call(prefix, "answer") == 1
        module.write_text(code(prefix, url, answer="2"))
        second = serving(process, prefix)
        assert client.call(prefix, "answer") == 2
        assert second != first
        process.signal_group(signal.SIGINT)
        assert process.wait().returncode == Exit.DONE
        assert not alive(second)
        with pytest.raises(lightlink.ServiceUnavailable):
            client.call(prefix, "answer")


def test_a_broken_file_is_reported_and_its_repair_starts_it(run: Run, module: Path, url: str, prefix: str) -> None:
    process = run("served:service", "--reload")
    serving(process, prefix)
    module.write_text("def\n")
    eventually(lambda: "waiting for a change" in process.stderr, timeout=30)
    assert "SyntaxError" in process.stderr
    module.write_text(code(prefix, url, answer="3"))
    serving(process, prefix)
    with lightlink.connect(url) as client:
        assert client.call(prefix, "answer") == 3
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == Exit.DONE


@pytest.mark.usefixtures("module")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent died")
def test_the_service_ends_when_its_watcher_is_killed(run: Run, prefix: str) -> None:
    process = run("served:service", "--reload")
    child = serving(process, prefix)
    process.signal(signal.SIGKILL)
    eventually(lambda: not alive(child), timeout=30)
