"""The server is killed, gone, silent: what was under way ends as it should, and everything goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from chaos.load import balanced

if TYPE_CHECKING:
    from conftest import StartProxy, StartServer

    from chaos.ledger import Ledger


def test_everything_goes_on_after_a_kill_and_restart_of_the_server(
    ledger: Ledger, fresh_server: StartServer, prefix: str
) -> None:
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


def test_everything_goes_on_after_the_connection_was_left_half_open(
    ledger: Ledger, proxy: StartProxy, url: str, prefix: str
) -> None:
    link = proxy()
    with balanced(ledger, prefix, link.url, url, ping_interval=0.2):
        link.half_open()


def test_everything_goes_on_while_the_connection_is_cut_again_and_again(
    ledger: Ledger, proxy: StartProxy, url: str, prefix: str
) -> None:
    link = proxy()
    with balanced(ledger, prefix, link.url, link.url) as load:
        for _ in range(5):
            link.cut()
            load.wait_progress()
