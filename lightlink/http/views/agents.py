"""Views of agents: who is online, and messages to them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType
from werkzeug.exceptions import NotFound

from lightlink.commands.model import PENDING
from lightlink.commands.store import schema
from lightlink.commands.store.history import MAX_LIMIT
from lightlink.commands.store.presence import read_presence
from lightlink.errors import InvalidName
from lightlink.http.schemas import AgentPage, ClientList, ClientView, MessageSent, TypeList, TypeView
from lightlink.http.views.representations import agent_view, client_view, message_view

if TYPE_CHECKING:
    from lightlink.commands.manager.inventory import AgentRecord
    from lightlink.http.call import Call

# How long an agent may take to say that it has a message, and to handle one.
_TAKE_SECONDS = 5.0
_HANDLE_SECONDS = 30.0
_BROADCAST_SECONDS = 2.0


def list_clients(call: Call) -> ClientList:
    """List the agents that are online."""
    now = call.manager.now()
    clients = [
        client_view(presence, now) for presence in call.manager.clients() if call.may_address(presence.client_id)
    ]
    return ClientList(total=len(clients), clients=clients)


def get_client(call: Call) -> ClientView:
    """Look at one agent that is online."""
    client_id = call.path["client_id"]
    _refuse_unknown(call, client_id)
    presence, _ = read_presence(call.manager.store, client_id)
    if presence is None:
        raise NotFound(f"Client not found: {client_id}")
    return client_view(presence, call.manager.now())


def list_agents(call: Call) -> AgentPage:
    """List the agents that were ever seen."""
    query = call.query
    found = [
        agent
        for agent in known_agents(call, query.label, online=query.online is True or None)
        if query.online in (UNSET, agent.online)
        and query.find.lower() in agent.client_id.lower()
        and (query.command_type is UNSET or query.command_type in agent.command_types)
    ]
    shown = found[query.skip : query.skip + query.limit]
    waiting: Counter[str] | None = None
    if query.queue:
        names = [agent.client_id for agent in shown]
        open_ = call.manager.list(names, PENDING, limit=MAX_LIMIT, brief=True)
        waiting = Counter(each.client_id for each in open_ if call.may_see(each))
    return AgentPage(
        total=len(found),
        online=sum(agent.online for agent in found),
        command_types=sorted({each for agent in found for each in agent.command_types}),
        agents=[agent_view(agent, waiting) for agent in shown],
    )


def known_agents(call: Call, label: str | UnsetType, *, online: bool | None = None) -> list[AgentRecord]:
    """Return the agents that were ever seen, that carry all labels, and that the token is good for."""
    # A large fleet is read once for all who ask within a moment, and for all the pages of one who reads on.
    known = call.app.recent.get(("agents", online), lambda: call.manager.agents(online=online))
    wanted = schema.labels(_labels(label)).items()
    return [agent for agent in known if wanted <= agent.labels.items() and call.may_address(agent.client_id)]


def list_command_types(call: Call) -> TypeList:
    """Ask an agent that is online what its types of commands are."""
    client_id = call.path["client_id"]
    _refuse_unknown(call, client_id)
    with call.seat():
        told = call.manager.describe(client_id, timeout=_TAKE_SECONDS)
    types = [TypeView(name=name, text=each.text, arguments=each.arguments) for name, each in sorted(told.items())]
    return TypeList(types=types)


def _labels(text: str | UnsetType) -> dict[str, str]:
    """Return labels from name=value,name=value."""
    return dict(each.split("=", 1) for each in text.split(",")) if text else {}


def _refuse_unknown(call: Call, client_id: str) -> None:
    """Raise NotFound for what is no agent's id, or one that the token is not good for."""
    try:
        schema.client_id(client_id)
    except InvalidName:
        raise NotFound(f"Client not found: {client_id}") from None
    if not call.may_address(client_id):
        raise NotFound(f"Client not found: {client_id}")


def send_message(call: Call) -> MessageSent:
    """Send a message to one agent."""
    body = call.body
    call.check(body.client_id, body.type)
    manager = call.manager
    seconds = _HANDLE_SECONDS if body.wait_ack else _TAKE_SECONDS
    with call.seat():
        receipt = manager.message(
            body.client_id,
            body.type,
            body.payload,
            wait_ack=body.wait_ack,
            timeout=seconds,
            issued_by=call.issued_by,
        )
    return message_view(receipt)


def broadcast_message(call: Call) -> MessageSent:
    """Send a message to all agents."""
    body = call.body
    call.check_all()
    call.check(command_type=body.type)
    manager = call.manager
    with call.seat():
        receipt = manager.broadcast(body.type, body.payload, timeout=_BROADCAST_SECONDS, issued_by=call.issued_by)
    return message_view(receipt)
