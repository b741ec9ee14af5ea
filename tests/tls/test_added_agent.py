"""An agent is added to a running server by one reload of its configuration, and disturbs nobody."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.certs import CertificateAuthority, server_config
from lightlink.cli.certs import certs
from lightlink.cli.terminal.exits import Exit, run
from lightlink.commands import Agent, CommandManager
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_added_agent_works_the_first_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = CertificateAuthority.create(tmp_path / "certs")
    folder = authority.directory
    authority.issue_server(["127.0.0.1"])
    authority.issue("manager", "manager")
    authority.issue("first", "agent")
    config = tmp_path / "nats.conf"
    config.write_text(server_config(folder, store_dir=None))
    stopped = threading.Event()
    done: list[int] = []

    def agent(name: str, url: str) -> Agent:
        made = Agent(name, url, tls=tls_of(folder, name))
        made.command("double")(lambda x: 2 * x)
        return made.start(timeout=30)

    with (
        EmbeddedServer(config=config) as server,
        lightlink.connect(server.url, tls=tls_of(folder, "manager")) as client,
        CommandManager(client) as manager,
        agent("first", server.url),
    ):

        def keep_sending() -> None:
            while not stopped.is_set():
                number = len(done)
                assert manager.send("first", "double", {"x": number}).result(30) == 2 * number
                done.append(number)

        sender = threading.Thread(target=keep_sending)
        sender.start()
        eventually(lambda: len(done) > 5)
        for names in (("second",), ("third", "fourth"), ("fifth",)):
            to_server = ("--config", str(config), "--pid", str(server.pid), "--url", server.url)
            assert run(certs, ["add", str(folder), *names, "--role", "agent", *to_server]) == Exit.DONE
            for name in names:
                with agent(name, server.url):
                    assert manager.send(name, "double", {"x": 21}).result(30) == 42
        before = len(done)
        eventually(lambda: len(done) > before + 5)
        stopped.set()
        sender.join(30)
        assert not sender.is_alive()
    assert [record for record in caplog.records if "connection to NATS lost" in record.getMessage()] == []
