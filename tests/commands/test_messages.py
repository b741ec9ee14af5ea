"""Messages to agents: not stored, acknowledged by whoever has them."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

import lightlink
from lightlink.commands import Agent, AgentMessage, CommandManager
from lightlink.errors import AgentOffline, InvalidName, InvalidOption, MessageTimeout, NotReady

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def manager(url: str, prefix: str) -> Iterator[CommandManager]:
    with lightlink.connect(url, name=prefix) as client, CommandManager(client) as manager:
        yield manager


def test_a_message_reaches_the_handler_of_its_type(url: str, prefix: str, manager: CommandManager) -> None:
    notices: list[AgentMessage] = []
    others: list[str] = []
    agent = Agent(prefix, url)
    agent.on_message("notice")(notices.append)
    agent.on_message(lambda message: others.append(message.type))
    with agent:
        receipt = manager.message(prefix, "notice", {"text": "hello"}, wait_ack=True)
        manager.message(prefix, "another", wait_ack=True)
    (notice,) = notices
    assert (notice.msg_id, notice.payload, notice.issued_by) == (receipt.msg_id, {"text": "hello"}, manager.name)
    assert (receipt.reached, receipt.online, receipt.errors) == ((prefix,), 1, {})
    assert others == ["another"]


def test_without_wait_ack_it_does_not_wait_for_the_handler(url: str, prefix: str, manager: CommandManager) -> None:
    release = threading.Event()
    agent = Agent(prefix, url)
    agent.on_message(lambda _: release.wait(20))
    with agent:
        assert manager.message(prefix, "notice").reached == (prefix,)
        with pytest.raises(MessageTimeout):
            manager.message(prefix, "notice", wait_ack=True, timeout=0.1)
        release.set()


def test_that_no_agent_is_there_is_known_at_once(prefix: str, manager: CommandManager) -> None:
    with pytest.raises(AgentOffline):
        manager.message(prefix, "notice", timeout=30)


def test_what_the_handler_raised_comes_back(
    url: str, prefix: str, manager: CommandManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "lightlink")  # pytest-xdist cannot carry half a surrogate pair in a log
    agent = Agent(prefix, url)

    @agent.on_message("notice")
    def fail(message: AgentMessage) -> None:
        raise ValueError(message.payload or "\ud800")  # half a pair is no text

    with agent:
        assert manager.message(prefix, "notice", "cannot", wait_ack=True).errors == {prefix: "ValueError: cannot"}
        assert manager.message(prefix, "notice", wait_ack=True).errors == {prefix: "ValueError: ?"}
        assert "takes no messages" in manager.message(prefix, "unknown").errors[prefix]


def test_a_broadcast_reaches_all_agents(url: str, prefix: str, manager: CommandManager) -> None:
    heard = threading.Semaphore(0)
    agents = [Agent(f"{prefix}-{number}", url) for number in range(3)]
    for agent in agents:
        agent.on_message(lambda _: heard.release())
        agent.start()
    try:
        receipt = manager.broadcast("notice", {"text": "all"})
        assert {agent.client_id for agent in agents} <= set(receipt.reached)
        for _ in agents:
            assert heard.acquire(timeout=30)
    finally:
        for agent in agents:
            agent.stop()


def test_mistakes_are_refused(url: str, prefix: str, manager: CommandManager) -> None:
    with pytest.raises(InvalidName):
        manager.message("no.token", "notice")
    with pytest.raises(InvalidOption):
        manager.message(prefix, "")
    agent = Agent(prefix, url)
    agent.on_message(print)
    with pytest.raises(InvalidOption):
        agent.on_message(print)
    with agent, pytest.raises(NotReady):
        agent.on_message("late")(print)


# What an agent tells of its commands ----------------------------------------------------------------------------------


def test_an_agent_tells_of_its_commands_what_their_handlers_say(url: str, manager: CommandManager, prefix: str) -> None:
    agent = Agent(prefix, url)

    @agent.command("restart")
    def restart(context: lightlink.CommandContext, delay_seconds: int = 0) -> bool:
        """Start it anew."""
        return True

    with agent:
        told = manager.describe(prefix)

    assert list(told) == ["restart"]
    assert told["restart"].text == "Start it anew."
    assert told["restart"].arguments["properties"] == {"delay_seconds": {"type": "integer", "default": 0}}
    assert told["restart"].result == {"type": "boolean"}
    with pytest.raises(AgentOffline):
        manager.describe(prefix)


def test_a_secretive_agent_tells_nothing_of_its_commands(url: str, manager: CommandManager, prefix: str) -> None:
    agent = Agent(prefix, url, describe=False)
    agent.register("restart", lambda: None)
    with agent, pytest.raises(NotReady, match="does not tell of its commands"):
        manager.describe(prefix)
