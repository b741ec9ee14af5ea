"""``lightlink stream``, ``consumer`` and ``dead``, and the how-to page."""

from __future__ import annotations

import json
import shlex
import signal
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from helpers.docs import blocks
from helpers.waiting import eventually

import lightlink
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.errors import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartServer

PAGE = "how-to/streams.md"


@pytest.fixture
def url(fresh_server: StartServer) -> str:
    return fresh_server().url


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as client:
        yield client


@pytest.fixture
def cli(url: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Run ``lightlink`` in this process; returns its output, or its errors where it is to fail."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*args: str, code: int = Exit.DONE) -> str:
        found = main([*args, f"--url={url}"])
        out, err = capsys.readouterr()
        assert found == code, err
        return err if code else out

    yield call
    signal.signal(signal.SIGTERM, before)


def test_streams_are_made_listed_replayed_and_removed(cli: Callable[..., str], client: lightlink.Client) -> None:
    cli("stream", "make", "ORDERS", "orders.>", "--max-age", "60")
    assert "max_age is 60 s, not 0 s" in cli("stream", "make", "ORDERS", "orders.>", code=Exit.FAILED)
    cli("stream", "make", "ORDERS", "orders.>", "bills.>", "--update")
    for number in range(3):
        client.publish_stored("orders.new", {"n": number})
    assert "ORDERS  orders.>, bills.>  3 messages" in cli("stream", "list")
    assert json.loads(cli("stream", "info", "ORDERS", "--json"))["messages"] == 3
    replayed = [json.loads(line) for line in cli("stream", "replay", "orders.>", "--since", "2", "--json").splitlines()]
    assert [(each["sequence"], each["data"]) for each in replayed] == [(2, '{"n":1}'), (3, '{"n":2}')]
    cli("stream", "make", "BILLS", "bill.*", "--partitions", "4")
    assert json.loads(cli("stream", "info", "BILLS", "--json"))["partitions"] == 4
    assert "3 events removed" in cli("stream", "purge", "ORDERS", "--yes")
    cli("stream", "delete", "ORDERS", "--yes")
    assert "there is none" in cli("stream", "info", "ORDERS", code=Exit.FAILED)


def test_consumers_and_dead_letters_are_looked_after(cli: Callable[..., str], client: lightlink.Client) -> None:
    client.stream("ORDERS", ["orders.>"])

    @client.consume("orders.>", name="billing")
    def bill(data: Any) -> None:
        raise Reject("no such customer")

    client.publish_stored("orders.new", {"n": 1}, headers={"k": "v"})
    eventually(lambda: "no such customer" in cli("dead", "list", "ORDERS", "billing"))
    letter = json.loads(cli("dead", "list", "ORDERS", "billing", "--json"))
    assert (letter["data"], letter["headers"]["k"], letter["sequence"]) == ('{"n":1}', "v", 1)
    number = str(letter["number"])
    assert "no such customer" in cli("dead", "show", "ORDERS", "billing", number)
    cli("dead", "redeliver", "ORDERS", "billing", number)
    # Between the redelivery and the next refusal there is none.
    told = eventually(lambda: cli("dead", "list", "ORDERS", "billing", "--json"))
    again = json.loads(told)
    assert again["number"] != letter["number"]
    cli("dead", "drop", "ORDERS", "billing", str(again["number"]))
    assert cli("dead", "list", "ORDERS", "billing") == ""
    assert "cannot find" in cli("dead", "drop", "ORDERS", "billing", "999", code=Exit.FAILED)
    later = (datetime.now().astimezone() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    cli("consumer", "pause", "ORDERS", "billing", later)
    assert "billing  0 waiting, 0 in flight, 0 retried, paused" in cli("consumer", "list", "ORDERS")
    cli("consumer", "resume", "ORDERS", "billing")
    assert json.loads(cli("consumer", "info", "ORDERS", "billing", "--json"))["paused"] is False
    cli("consumer", "reset", "ORDERS", "billing", "--since", "new")
    assert "out of range" in cli("stream", "replay", "orders.>", "--since", "0001-01-01", code=Exit.USAGE)


def test_the_page_runs_as_it_is_printed(
    cli: Callable[..., str], url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTLINK_URL", url)
    names: dict[str, Any] = {}
    printed = ""
    for block in blocks(PAGE, "python")[:3]:
        exec(compile(block, PAGE, "exec"), names)
    client: lightlink.Client = names["client"]
    eventually(lambda: client.consumer("ORDERS", "billing").lag().waiting == 0)
    printed = capsys.readouterr().out
    assert "ORDERS 1 False" in printed
    assert "billed 1 attempt 1" in printed
    client.close()
    names["client"] = lightlink.connect(url)
    exec(compile(blocks(PAGE, "python")[3].replace('since="first"', "since=10_000"), PAGE, "exec"), names)
    names["client"].close()
    for line in blocks(PAGE, "sh")[0].splitlines():
        command = shlex.split(line)[1:]
        cli(*command)
