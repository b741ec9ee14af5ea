"""``lightlink http`` as a user starts and stops it."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest
from helpers.http import CLI, Http, HttpProcess
from helpers.process import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython


def test_it_says_where_it_listens(python: StartPython, url: str) -> None:
    process = python(CLI, f"--url={url}", "--listen=127.0.0.1:0")

    line = process.wait_line("listening on ")
    address, _, rest = line.partition(" ")

    assert Http(address).get("/health").status == 200
    assert rest.startswith(f"(process {process.pid}; no tokens are configured")
    assert rest.endswith("; Ctrl-C stops it")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_asked_to(url: str, sign: signal.Signals) -> None:
    with HttpProcess(url) as running:
        running.process.signal(sign)
        finished = running.process.wait()

    assert finished.returncode == 0
    assert "Traceback" not in finished.stderr


def test_it_frees_its_port(url: str) -> None:
    with HttpProcess(url) as running:
        port = running.http.port
        running.process.signal(signal.SIGTERM)
        running.process.wait()

    with HttpProcess(url, f"--listen=127.0.0.1:{port}") as again:
        assert again.http.get("/health").status == 200


def one_line(*arguments: str) -> tuple[int, str]:
    finished = run_python(CLI, *arguments)
    assert finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1, finished.stderr
    return finished.returncode, finished.stderr.rstrip()


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("8475", "must be host:port"),
        ("127.0.0.1:http", "must be host:port"),
        ("127.0.0.1:70000", "must be host:port"),
        (":8475", "must be host:port"),
        ("no.such.host.invalid:1", "there is no such address"),
        ("0.0.0.0:0", "without tokens only a loopback address such as 127.0.0.1 may be used"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(url: str, listen: str, reason: str) -> None:
    code, problem = one_line(f"--url={url}", f"--listen={listen}")

    assert code == 2
    assert problem.startswith(f"error: invalid listen {listen!r}: {reason}")


def test_a_port_in_use_is_one_line(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, problem = one_line(f"--url={url}", f"--listen={listen}")

    assert (code, problem) == (1, f"error: cannot listen on {listen}: Address already in use")


def test_nats_out_of_reach_is_one_line() -> None:
    code, problem = one_line("--url=nats://127.0.0.1:1", "--listen=127.0.0.1:0")

    assert code == 3
    assert problem.startswith("error: could not connect to NATS")


def test_tokens_that_cannot_be_used_are_one_line(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text('{"tokens": []}')

    assert one_line(f"--url={url}", f"--tokens={path}") == (2, f"error: invalid tokens {str(path)!r}: holds none")


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_it_listens_where_it_is_told_to(url: str, host: str) -> None:
    with HttpProcess(url, f"--listen={host}:0") as running:
        assert running.http.get("/health").status == 200
