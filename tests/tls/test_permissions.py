"""Roles through LightLink itself, on a real TLS server: what an identity may do works, what it may not is an error."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandContext, CommandManager, StoreOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartServer
    from helpers.pki import ConnectAs, LinkAs

    from lightlink.certs import CertificateAuthority
    from lightlink.server import EmbeddedServer

# A refusal must not wait for this; a test takes a minute at most.
LONG = 50.0


def denied(operation: str, subject: str, use: Callable[[], object]) -> None:
    """Check that a use is refused, with the operation and the subject."""
    with pytest.raises(lightlink.PermissionDenied) as caught:
        use()
    assert (caught.value.operation, caught.value.subject) == (operation, subject)
    assert subject in str(caught.value)


# Calls, events --------------------------------------------------------------------------------------------------------


def test_a_call_that_is_not_allowed_fails_at_once(link_as: LinkAs) -> None:
    client = link_as("web.eu")  # it may call math only
    denied("publish", "$SRV.bank.pay", lambda: client.call("bank", "pay", {"sum": 1}, timeout=LONG))
    denied("publish", "$SRV.bank.pay", lambda: client.submit("bank", "pay", timeout=LONG).result(LONG))
    with pytest.raises(lightlink.ServiceUnavailable):
        client.call("math", "add", timeout=LONG)


def test_each_of_many_callers_hears_of_the_refusal(link_as: LinkAs) -> None:
    client = link_as("mute")
    futures = [client.submit("bank", f"m{n % 3}", timeout=LONG) for n in range(30)]
    assert {type(future.exception(LONG)) for future in futures} == {lightlink.PermissionDenied}


def test_a_subscription_not_allowed_raises_for_itself_alone(link_as: LinkAs) -> None:
    client, ops = link_as("web.eu"), link_as("ops")
    news = client.subscribe("events.news")
    denied("subscribe", "events.Secret", lambda: client.subscribe("events.Secret"))
    denied("subscribe", "events.>", lambda: client.subscribe("events.>", print, queue="spies"))
    ops.publish("events.news", 1)
    assert news.get(timeout=30).data == 1


def test_a_publish_not_allowed_fails_the_next_flush(link_as: LinkAs) -> None:
    reported: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    client, ops = link_as("web", on_error=reported.put), link_as("ops")
    heard = ops.subscribe("events.>")
    client.publish("Other.Subject", 1)
    client.publish("events.allowed", 2)
    denied("publish", "Other.Subject", client.flush)
    error = reported.get(timeout=30)
    assert isinstance(error, lightlink.PermissionDenied)
    assert (error.operation, error.subject) == ("publish", "Other.Subject")
    client.flush()  # it has been told
    assert heard.get(timeout=30).data == 2
    assert reported.empty()


def test_an_identity_cannot_listen_to_another_s_replies(link_as: LinkAs) -> None:
    client = link_as("web")
    inbox = client._connection.session.replies.prefix.decode()
    assert inbox.startswith("_INBOX.web.")
    for name in ("web.eu", "user-service", "manager"):
        denied("subscribe", f"{inbox}*", lambda name=name: link_as(name).subscribe(f"{inbox}*"))  # type: ignore[misc]


def test_what_is_no_longer_allowed_at_the_reconnect_is_reported(
    fresh_server: StartServer, authority: CertificateAuthority
) -> None:
    authority.issue_server(["127.0.0.1"])
    authority.issue("web", subscribe=["events.news", "events.more"])
    server = fresh_server(tls=authority.directory)
    reported: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    tls = tls_of(authority.directory, "web")
    with lightlink.connect(server.url, tls=tls, on_error=reported.put) as client:
        news, more = client.subscribe("events.news"), client.subscribe("events.more")
        authority.issue("web", subscribe=["events.more"], force=True)
        server.restart()
        error = reported.get(timeout=30)
        assert isinstance(error, lightlink.PermissionDenied)
        assert (error.operation, error.subject) == ("subscribe", "events.news")
        client.publish("events.more", 1)
        assert more.get(timeout=30).data == 1
        assert news.dropped == 0


# State, files, commands -----------------------------------------------------------------------------------------------

STATE_USES: dict[str, Callable[[lightlink.Client], object]] = {
    "set": lambda client: client.set_state("key", 1, timeout=LONG),
    "create": lambda client: client.create_state("key", 1, timeout=LONG),
    "update": lambda client: client.update_state("key", 1, revision=1, timeout=LONG),
    "get": lambda client: client.get_state("key", None, timeout=LONG),
    "delete": lambda client: client.delete_state("key", timeout=LONG),
    "keys": lambda client: client.state().keys(timeout=LONG),
    "history": lambda client: client.state().history("key", timeout=LONG),
    "watch": lambda client: client.watch_state(">", print, timeout=LONG),
}
FILE_USES: dict[str, Callable[[lightlink.Client, Path], object]] = {
    "upload": lambda client, path: client.upload(path),
    "send": lambda client, path: client.send_file(path, to="store"),
    "download": lambda client, path: client.download("some-id", path),
    "list": lambda client, _: client.files(),
    "delete": lambda client, _: client.delete_file("some-id"),
}


@pytest.mark.parametrize("use", STATE_USES)
def test_state_that_is_not_granted_is_refused_at_once(link_as: LinkAs, use: str) -> None:
    with pytest.raises(lightlink.PermissionDenied, match="light_link_state"):
        STATE_USES[use](link_as("web"))


@pytest.mark.parametrize("use", FILE_USES)
def test_files_that_are_not_granted_are_refused_at_once(link_as: LinkAs, use: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with pytest.raises(lightlink.PermissionDenied, match="light_link_files"):
        FILE_USES[use](link_as("web"), path)


def test_commands_that_are_not_granted_are_refused_at_once(link_as: LinkAs) -> None:
    with pytest.raises(lightlink.PermissionDenied, match="LIGHTLINK_COMMANDS"):
        CommandManager(link_as("web"))
    with pytest.raises(lightlink.PermissionDenied, match="LIGHTLINK_COMMANDS"):
        CommandManager(link_as("agent-a"))


# Services -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def reports() -> list[Exception]:
    """What the error hooks were told: each refusal that no caller heard of."""
    return []


def test_a_service_and_a_client_do_all_that_their_roles_are_for(
    link_as: LinkAs, connect_as: ConnectAs, reports: list[Exception]
) -> None:
    client = link_as("web", on_error=reports.append)
    ops = link_as("ops", on_error=reports.append)
    service = lightlink.Service("user-service", link_as("user-service", on_error=reports.append))
    math = lightlink.Service("math", ops)  # an administrator may be any service
    math.register("double", lambda n: 2 * n)

    @service.rpc
    def get(n: int, request: lightlink.Request) -> int:
        service.client.publish("events.user.asked", {"n": n})
        return int(request.client.call("math", "double", {"n": n}))

    @service.on("events.orders")
    def ordered(order: dict[str, Any]) -> None:
        service.client.publish("events.user.ordered", order)

    with math, service:
        heard = ops.subscribe("events.user.*")
        assert client.call("user-service", "get", {"n": 21}) == 42
        assert heard.get(timeout=30).data == {"n": 21}
        client.publish("events.orders", {"item": "pear"})
        assert heard.get(timeout=30).data == {"item": "pear"}
        plain = connect_as("ops", inbox_prefix="_INBOX")
        for subject in ("$SRV.PING", "$SRV.INFO.user-service", f"$SRV.STATS.user-service.{service.instance}"):
            answer = plain.run(plain.nc.request(subject, b"", timeout=30))
            # To a question that names nobody the other service answers too.
            assert (b'"user-service"' if subject != "$SRV.PING" else b'"name"') in answer.data
    for each in (client, ops):
        each.flush()
    assert reports == []


def test_a_service_cannot_take_another_s_name(link_as: LinkAs) -> None:
    service = lightlink.Service("math", link_as("user-service"))
    service.register("add", lambda a, b: a + b)
    denied("subscribe", "$SRV.math.>", service.start)


def test_a_service_without_the_grant_does_not_start(secured: EmbeddedServer, identities: Path) -> None:
    service = lightlink.Service("user-service", secured.url, tls=tls_of(identities, "user-service"))
    service.on("events.secret")(print)
    denied("subscribe", "events.secret", service.start)
    with pytest.raises(lightlink.ClosedError):
        service.start()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightlink-loop-user-service")]


def test_a_refusal_within_a_handler_is_an_error_of_the_handler(link_as: LinkAs) -> None:
    service = lightlink.Service("user-service", link_as("user-service"))

    @service.rpc
    def pay() -> None:
        service.client.call("bank", "pay", timeout=LONG)

    with service, pytest.raises(lightlink.HandlerError, match=r"PermissionDenied.*\$SRV\.bank\.pay"):
        link_as("web").call("user-service", "pay", timeout=LONG)


# Commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def commanding(fresh_server: StartServer, authority: CertificateAuthority) -> EmbeddedServer:
    """A server of the test's own for a manager and two agents."""
    authority.issue_server(["127.0.0.1"])
    authority.issue("manager", "manager")
    authority.issue("agent-a", "agent")
    authority.issue("agent-b", "agent")
    return fresh_server(tls=authority.directory)


def test_a_manager_and_an_agent_do_all_that_their_roles_are_for(
    commanding: EmbeddedServer, authority: CertificateAuthority, reports: list[Exception]
) -> None:
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    started = threading.Event()
    options: dict[str, Any] = {"on_error": reports.append}
    store = StoreOptions(heartbeat=0.5)
    agent = Agent("agent-a", commanding.url, tls=tls_of(authority.directory, "agent-a"), store=store, **options)
    agent.on_message(lambda message: messages.put(message.payload))

    @agent.command("double")
    def double(n: int, context: CommandContext) -> int:
        context.progress(0.5, "half")
        return 2 * n

    @agent.command("wait")
    def wait(context: CommandContext) -> str:
        started.set()
        assert context.cancelled.wait(20)
        return "told"

    tls = tls_of(authority.directory, "manager")
    with (
        lightlink.connect(commanding.url, tls=tls, **options) as client,
        CommandManager(client, store=store) as manager,
    ):
        progress = client.subscribe("ll.progress.agent-a.*")
        # It is offline, and gets this on connecting.
        promise = manager.send("agent-a", "double", {"n": 21})
        with agent:
            assert promise.result(20) == 42
            assert progress.get(timeout=30).data["note"] == "half"
            assert [presence.client_id for presence in manager.clients()] == ["agent-a"]
            waiting = manager.send("agent-a", "wait")
            assert started.wait(20)
            manager.cancel(waiting.command_id, "enough")
            assert waiting.result(20) == "told"
            assert manager.message("agent-a", "note", "to you", wait_ack=True).reached == ("agent-a",)
            assert manager.broadcast("note", "to all").reached == ("agent-a",)
            assert [messages.get(timeout=30) for _ in range(2)] == ["to you", "to all"]
            assert manager.send_many(["agent-a"], "double", {"n": 1}).wait(20)
            assert manager.get(promise.command_id).status == "completed"
            assert len(manager.list("agent-a")) == 3
            eventually(lambda: [entry.status for entry in manager.audit(promise.command_id)][-1:] == ["completed"])
            rival = Agent("agent-a", commanding.url, tls=tls_of(authority.directory, "agent-a"), store=store)
            with pytest.raises(lightlink.AgentInUse):
                rival.start()
        client.flush()
    assert reports == []


def test_an_agent_cannot_be_another(commanding: EmbeddedServer, authority: CertificateAuthority) -> None:
    tls = tls_of(authority.directory, "manager")
    with lightlink.connect(commanding.url, tls=tls) as client, CommandManager(client):
        impostor = Agent("agent-b", commanding.url, tls=tls_of(authority.directory, "agent-a"))
        with pytest.raises(lightlink.PermissionDenied, match="agent-b"):
            impostor.start()
