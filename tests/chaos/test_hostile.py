"""Strangers, peers and servers that say what they should not: no thread is lost, and no reply goes to another."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import io
import json
import queue
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.hostile import BODIES, HEADERS, OVERDUE, REPLIES, STREAMS, Arrival, HostilePeer
from helpers.waiting import eventually
from hypothesis import given, settings
from hypothesis import strategies as st

import lightlink
from lightlink.commands import Agent, CommandManager
from lightlink.errors import CallTimeout, DecodeError, LightLinkError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartProxy, StartServer


def our_threads() -> set[threading.Thread]:
    """Return the library's threads: loops, notifiers and workers."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("lightlink-")}


@contextlib.contextmanager
def no_thread_lost() -> Iterator[None]:
    before = our_threads()
    assert before
    yield
    assert [thread.name for thread in before if not thread.is_alive()] == []


def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def adder(url: str, prefix: str, client: lightlink.Client) -> Iterator[str]:
    """The name of a service that adds; its threads all run."""
    service = lightlink.Service(prefix, url, workers=2)
    service.register("add", add)
    with service:
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
        yield prefix


@pytest.fixture
def stranger(url: str) -> Iterator[HostilePeer]:
    with HostilePeer(url) as peer:
        yield peer


def ask(peer: HostilePeer, service: str, body: bytes, headers: bytes | None = None) -> Arrival:
    """Send a request for ``add`` and return the answer, which has to be there and to be the only one."""
    peer.publish(f"$SRV.{service}.add", body, f"_INBOX.{service}.answers", headers)
    return peer.get()


# Requests -------------------------------------------------------------------------------------------------------------


def test_a_bad_body_is_answered_with_an_error(adder: str, client: lightlink.Client, stranger: HostilePeer) -> None:
    stranger.subscribe(f"_INBOX.{adder}.answers")
    with no_thread_lost():
        for name, body in BODIES.items():
            if name == "an id as large as the server takes":
                continue  # there is no room for an answer
            answer = json.loads(ask(stranger, adder, body).payload)
            assert (name, set(answer), answer["success"]) == (name, {"id", "success", "error", "code"}, False)
            assert answer["code"] in ("invalid_request", "invalid_arguments"), name
            assert answer["id"] in (None, "1"), name
            assert len(answer["error"]) < 5000, name
        stranger.publish(f"$SRV.{adder}.add", BODIES["an id as large as the server takes"], f"_INBOX.{adder}.answers")
        assert client.call(adder, "add", {"a": 1, "b": 2}) == 3


def test_headers_that_are_no_good_are_no_hindrance(adder: str, client: lightlink.Client, stranger: HostilePeer) -> None:
    stranger.subscribe(f"_INBOX.{adder}.answers")
    good = b'{"id":"1","method":"add","args":{"a":1,"b":2}}'
    with no_thread_lost():
        for name, headers in HEADERS.items():
            assert (name, json.loads(ask(stranger, adder, good, headers).payload).get("result")) == (name, 3)
        for name, headers in OVERDUE.items():
            assert (name, json.loads(ask(stranger, adder, good, headers).payload)["code"]) == (
                name,
                "deadline_exceeded",
            )
        assert client.call(adder, "add", {"a": 1, "b": 2}) == 3


def test_a_handler_gets_what_can_be_read_of_bad_headers(url: str, prefix: str, stranger: HostilePeer) -> None:
    service = lightlink.Service(prefix, url)

    @service.rpc("add")
    def look(request: lightlink.Request) -> bool:
        assert request.remaining() > 0
        return all(isinstance(text, str) for item in request.headers.items() for text in item)

    with service:
        stranger.subscribe(f"_INBOX.{prefix}.answers")
        for name, headers in HEADERS.items():
            answer = json.loads(ask(stranger, prefix, b'{"id":"1","method":"add"}', headers).payload)
            assert (name, answer.get("result")) == (name, True)


VALID = b'{"id":"1","method":"add","args":{"a":1,"b":2}}'


@st.composite
def damaged(draw: Any) -> bytes:
    """A request of which some pieces are missing, doubled, moved or replaced."""
    body = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(body))] * 2)))
        pieces = [b"", bytes(body[start:end]) * 2, bytes(body), b'"', b"[" * 200]
        piece = draw(st.sampled_from(pieces) | st.binary(max_size=8))
        body[start:end] = piece
    return bytes(body)


blocks = (
    st.none() | st.binary(max_size=40) | st.sampled_from([*HEADERS.values()]).filter(lambda block: len(block) < 1000)
)


def test_every_damaged_request_is_answered_once(adder: str, client: lightlink.Client, stranger: HostilePeer) -> None:
    stranger.subscribe(f"_INBOX.{adder}.answers.*")

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(st.tuples(damaged() | st.binary(max_size=60), blocks), min_size=1, max_size=10))
    def check(requests: list[tuple[bytes, bytes | None]]) -> None:
        for number, (body, headers) in enumerate(requests):
            stranger.publish(f"$SRV.{adder}.add", body, f"_INBOX.{adder}.answers.{number}", headers)
        answers = [stranger.get() for _ in requests]
        assert {answer.subject for answer in answers} == {f"_INBOX.{adder}.answers.{n}" for n in range(len(requests))}
        for answer in answers:
            content = json.loads(answer.payload)
            assert content["success"] is ("result" in content)

    with no_thread_lost():
        check()
        assert client.call(adder, "add", {"a": 1, "b": 2}) == 3


def test_strange_events_and_questions_harm_nobody(
    url: str, prefix: str, client: lightlink.Client, stranger: HostilePeer
) -> None:
    heard: list[tuple[str, Any]] = []
    errors: list[Exception] = []
    service = lightlink.Service(prefix, lightlink.connect(url, on_error=errors.append))
    done = threading.Event()

    @service.on(f"{prefix}.>")
    def hear(message: lightlink.Message) -> None:
        heard.append((message.subject, message.data))
        if message.data == "the end":
            done.set()

    with service, no_thread_lost():
        for body in BODIES.values():
            for verb in ("PING", "INFO", "STATS"):
                stranger.publish(f"$SRV.{verb}.{prefix}", body[:10_000], f"_INBOX.{prefix}.\xff\xfe")
            stranger.publish(f"{prefix}.body", body[:100_000], "a.reply.subject")
        for headers in HEADERS.values():
            stranger.publish(f"{prefix}.headers", b'"x"', headers=headers)
        stranger.publish(f"{prefix}.end", b'"the end"')
        assert done.wait(30)
        assert sum(subject.endswith(".headers") for subject, _ in heard) == len(HEADERS)
        assert {type(error) for error in errors} == {DecodeError}
    service.client.close()


SMALL = [body for body in BODIES.values() if len(body) < 10_000]
STORED = [block for block in HEADERS.values() if len(block) < 60_000]  # JetStream stores no more


def test_strange_values_and_announcements_hide_no_good_ones(fresh_server: StartServer) -> None:
    server = fresh_server()
    told: list[Any] = []
    changes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    errors: list[Exception] = []
    with contextlib.ExitStack() as stack:
        stranger = stack.enter_context(HostilePeer(server.url))
        client = stack.enter_context(lightlink.connect(server.url, on_error=errors.append))
        service = lightlink.Service("files", client)
        service.on_file(told.append)
        stack.enter_context(service)
        client.watch_state(handler=changes.put)
        with no_thread_lost():
            for number, body in enumerate(SMALL):
                stranger.publish("file.transfer", body)
                stranger.publish(f"$KV.light_link_state.body{number}", body)
            for number, headers in enumerate(STORED):
                stranger.publish(f"$KV.light_link_state.headers{number}", b"1", headers=headers)
            stranger.flush()
            info = client.send_file(io.BytesIO(b"good"), to="files", name="good")
            client.set_state("good", "good")
            while changes.get(timeout=30).key != "good":
                pass
            assert eventually(lambda: [each.id for each in told] == [info.id])
        assert client.get_state("good") == "good"
        assert [client.get_state(f"headers{number}") for number in range(len(STORED))] == [1] * len(STORED)
    assert {type(error) for error in errors} == {DecodeError}


def test_strange_commands_and_statuses_hold_up_no_good_ones(fresh_server: StartServer) -> None:
    server = fresh_server()
    with contextlib.ExitStack() as stack:
        stranger = stack.enter_context(HostilePeer(server.url))
        client = stack.enter_context(lightlink.connect(server.url))
        manager = stack.enter_context(CommandManager(client))
        agent = Agent("agent", server.url)
        agent.register("add", add)
        stack.enter_context(agent)
        assert manager.send("agent", "add", {"a": 1, "b": 2}).result(30) == 3
        with no_thread_lost():
            for number, body in enumerate(SMALL):
                for subject in ("ll.commands.agent", "$KV.lightlink_command_status.agent", "ll.status.agent"):
                    stranger.publish(f"{subject}.bad{number}", body)
                stranger.publish(f"$KV.lightlink_agents.bad{number}", body)
            for number, headers in enumerate(STORED):
                stranger.publish(f"ll.commands.agent.headers{number}", b"{}", headers=headers)
            stranger.flush()
            promise = manager.send("agent", "add", {"a": 1, "b": 2})
            for body in SMALL:
                for subject in ("ll.status.agent", "ll.progress.agent"):
                    stranger.publish(f"{subject}.{promise.command_id}", body)
            assert promise.result(30) == 3
            readable = [each for each in manager.list(limit=1000) if each.status_detail != "unreadable"]
            assert len(readable) == 2
            assert [each.client_id for each in manager.clients()] == ["agent"]


# Replies --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(url: str, name: str, answer: Callable[[HostilePeer, Arrival], None]) -> Iterator[None]:
    """Serve a name with whatever ``answer(peer, request)`` says to a request."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool, HostilePeer(url) as peer:
        peer.subscribe(f"$SRV.{name}.*", "q")

        def serve() -> None:
            with contextlib.suppress(EOFError, OSError):  # it is closed
                while True:
                    answer(peer, peer.get())

        served = pool.submit(serve)
        try:
            yield
        finally:
            peer.hang_up()
        served.result(30)


def id_of(request: Arrival) -> str:
    found: str = json.loads(request.payload)["id"]
    return found


def test_a_bad_reply_is_an_error_of_ours(url: str, prefix: str, client: lightlink.Client) -> None:
    def answer(peer: HostilePeer, request: Arrival) -> None:
        method = request.subject.rpartition(".")[2]
        body = b'{"id":"ID","success":true,"result":"good"}' if method == "good" else replies[int(method)]
        peer.publish(request.reply, body.replace(b"ID", id_of(request).encode()))

    replies = [*REPLIES.values()]
    with serving(url, prefix, answer), no_thread_lost():
        for number, name in enumerate(REPLIES):
            with pytest.raises((RemoteError, DecodeError)) as caught:
                client.call(prefix, str(number))
            assert len(str(caught.value)) < 1_100_000, name
            assert isinstance(client.submit(prefix, str(number)).exception(30), (RemoteError, DecodeError)), name
        assert client.call(prefix, "good") == "good"


def test_headers_of_a_reply_are_no_hindrance(url: str, prefix: str, client: lightlink.Client) -> None:
    def answer(peer: HostilePeer, request: Arrival) -> None:
        headers = headers_of[int(request.subject.rpartition(".")[2])]
        body = b'{"id":"%b","success":true,"result":1}' % id_of(request).encode()
        peer.publish(request.reply, body, headers=headers)

    headers_of = [*HEADERS.values(), *OVERDUE.values()]
    with serving(url, prefix, answer):
        for number in range(len(headers_of)):
            assert client.call(prefix, str(number)) == 1


def test_however_deep_an_error_is_it_is_an_error_of_ours(url: str, prefix: str, client: lightlink.Client) -> None:
    def answer(peer: HostilePeer, request: Arrival) -> None:
        depth = int(request.subject.rpartition(".")[2])
        peer.publish(request.reply, b'{"success":false,"error":' + b'{"a":[' * depth + b"]}" * depth + b"}")

    with serving(url, prefix, answer):
        for depth in (1, *range(100, 600, 5), 5000):
            with pytest.raises((RemoteError, DecodeError)):
                client.call(prefix, str(depth))


def test_no_caller_gets_the_answer_to_anothers_question(url: str, prefix: str, client: lightlink.Client) -> None:
    """A service that answers late, twice, to the wrong token and with wrong ids, and one that guesses tokens."""
    dice = random.Random(8)
    held: list[Arrival] = []

    def answer(peer: HostilePeer, request: Arrival) -> None:
        held.append(request)
        other = dice.choice(held)
        right = b'{"id":"%b","success":true,"result":%d}'
        for asked, told in dice.choice(
            [
                [(request, request)],
                [(request, request), (request, request)],
                [(request, other), (other, request)],
                [(other, request), (request, request)],
                [(other, other)],
                [],
            ]
        ):
            number = json.loads(told.payload)["args"]["number"]
            peer.publish(asked.reply, right % (id_of(told).encode(), number))
        token = request.reply[:-4] + f"{dice.randrange(16**4):04x}"
        peer.publish(token, right % (id_of(request).encode(), -1))
        peer.publish(request.reply + ".more", b"")

    def call(number: int) -> str:
        try:
            assert client.call(prefix, "m", {"number": number}, timeout=0.2) == number
        except DecodeError as exc:
            return "not taken" if "the reply is to request" in str(exc) else repr(exc)
        except CallTimeout:
            return "timed out"
        return "answered"

    with serving(url, prefix, answer), no_thread_lost(), concurrent.futures.ThreadPoolExecutor(12) as pool:
        outcomes = collections.Counter(pool.map(call, range(150)))
    assert set(outcomes) == {"answered", "not taken", "timed out"}
    replies = client._connection.session.replies
    eventually(lambda: replies.strays >= 150)
    assert len(replies) == 0


# Servers --------------------------------------------------------------------------------------------------------------


def test_a_server_that_says_what_it_should_not_is_survived(proxy: StartProxy, url: str, prefix: str) -> None:
    line = proxy()
    options: dict[str, Any] = {"ping_interval": 0.1, "reconnect_wait": 0.01, "reconnect_wait_max": 0.05}
    heard: list[Any] = []
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(lightlink.connect(line.url, **options))
        service = lightlink.Service(prefix, line.url, **options)
        service.register("add", add)
        stack.enter_context(service)
        client.subscribe(prefix, heard.append)

        def works(name: str) -> bool:
            try:
                client.publish(prefix, name)
                return client.call(prefix, "add", {"a": 1, "b": 2}, timeout=0.5) == 3 and name in heard
            except LightLinkError:
                return False

        assert eventually(lambda: works("before"))
        with no_thread_lost():
            for name, stream in STREAMS.items():
                line.inject(stream)
                assert eventually(lambda: works(name), timeout=30), name  # noqa: B023 - called at once
