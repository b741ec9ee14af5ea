"""What an agent needs of its wire: nothing before it is opened, and of each payload one reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from helpers.commands import FAST, World

import lightlink
from lightlink.commands import StoreOptions
from lightlink.commands.agent.handlers import Handlers
from lightlink.commands.agent.ports import AgentLink
from lightlink.commands.agent.runner import Runner
from lightlink.commands.messages import MessageHandlers

if TYPE_CHECKING:
    from lightlink.server import EmbeddedServer


def test_an_agent_s_runner_is_made_without_a_connection() -> None:
    client = lightlink.connect("nats://127.0.0.1:1", lazy=True)
    link = AgentLink(client, "press", "instance", StoreOptions())
    Runner(link, {}, Handlers(None), MessageHandlers(), 4, 16, True, print)
    assert not client._connection.is_in_use
    assert client.status is lightlink.Status.CONNECTING
    client.close()


def test_a_command_s_payload_is_bound_once(server: EmbeddedServer, prefix: str) -> None:
    bound = []

    @attrs.define
    class Order:
        number: int

        def __attrs_post_init__(self) -> None:
            bound.append(self.number)

    def press(order: Order) -> int:
        return order.number

    press.__annotations__["order"] = Order  # local to this function, where no name is looked for
    with World(server.url, FAST) as world:
        agent = world.agent(prefix)
        agent.register("press", press)
        agent.start()
        assert world.manager(sweep_interval=None).send(prefix, "press", {"order": {"number": 7}}).result(30) == 7
    assert bound == [7]
