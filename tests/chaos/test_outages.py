"""The server is killed, gone, silent: what was under way ends as it should, and everything goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink
from chaos.ledger import Calls
from chaos.load import balanced
from lightlink.errors import CallTimeout

if TYPE_CHECKING:
    from conftest import StartProxy, StartPython, StartServer

    from chaos.ledger import Ledger


def test_everything_goes_on_after_a_kill_and_restart(ledger: Ledger, fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server()
    with balanced(ledger, prefix, server.url, server.url):
        server.kill()
        server.start()


@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=[pytest.mark.slow, pytest.mark.timeout(180)])])
def test_everything_goes_on_after_the_server_was_gone(
    ledger: Ledger, fresh_server: StartServer, prefix: str, seconds: float
) -> None:
    server = fresh_server()
    with balanced(ledger, prefix, server.url, server.url) as load:
        server.kill()
        time.sleep(seconds)
        server.start()
    assert load.calls.count("ServiceUnavailable") >= seconds  # two callers, a second each


def test_everything_goes_on_after_a_half_open_connection(
    ledger: Ledger, proxy: StartProxy, url: str, prefix: str
) -> None:
    link = proxy()
    with balanced(ledger, prefix, link.url, url, ping_interval=0.2):
        link.half_open()


def test_everything_goes_on_while_the_connection_is_cut(
    ledger: Ledger, proxy: StartProxy, url: str, prefix: str
) -> None:
    link = proxy()
    with balanced(ledger, prefix, link.url, link.url) as load:
        for _ in range(5):
            link.cut()
            load.wait_progress()


def test_a_request_held_back_runs_at_most_once(proxy: StartProxy, url: str, prefix: str) -> None:
    """The one way in which a call runs after its caller gave up: its time counts from its arrival at the service."""
    link, runs = proxy(), Calls()
    service = lightlink.Service(prefix, url)
    service.register("work", runs.run)
    with service, lightlink.connect(link.url) as client:
        link.pause()
        with pytest.raises(CallTimeout, match="may have run"):
            client.call(prefix, "work", {"number": 1}, timeout=2.0)
        link.resume()
        runs.wait_for(lambda: bool(runs.figures()["run"]))
        assert client.call(prefix, "work", {"number": 2}, timeout=30) == 2
    assert runs.figures()["run"] == 2
    assert runs.faults()["run twice"] == []


@pytest.mark.tcp("a gateway's certificate is for its name, whatever the address")
def test_a_name_that_gets_another_address_is_looked_up_again(
    fresh_server: StartServer, python: StartPython, prefix: str
) -> None:
    """One server is killed, and its name then is that of another: same port, other address."""
    old = fresh_server()
    new = fresh_server(host="127.0.0.2", port=old.port)
    # What a resolver answers is changed at the one place where Python asks it, in a process of its own.
    process = python(
        """
        import socket, sys
        import lightlink

        address, resolve = "127.0.0.1", socket.getaddrinfo

        def answer(host, *args, **kwargs):
            return resolve(address if host == "nats.example" else host, *args, **kwargs)

        socket.getaddrinfo = answer
        with lightlink.connect(f"nats://nats.example:{sys.argv[1]}") as client:
            received = client.subscribe(sys.argv[2])
            print("connected", flush=True)
            input()
            address = "127.0.0.2"
            print("told", received.get(timeout=30).data, flush=True)
        """,
        old.port,
        prefix,
    )
    process.wait_line("connected")
    old.kill()
    process.send_line()
    with lightlink.connect(new.url) as client:

        def tell() -> bool:
            client.publish(prefix, "the news")
            return "told" in process.stdout

        assert eventually(tell, timeout=30)
    assert process.wait_line("told") == "the news"
    assert process.wait().returncode == 0
