"""Short messages to agents that are online: not stored, at most once, and each agent says that it has got it.

A message goes to ``ll.messages.<client_id>`` or, to all, to ``ll.broadcast``. An agent answers on
``ll.acks.<client_id>.<msg_id>``, where nobody else may publish, so that none can answer for another.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink import logs
from lightlink.commands.store import checks, records
from lightlink.concurrency.forks import run_handler
from lightlink.concurrency.mailbox import Mailbox
from lightlink.concurrency.threads import Condition, has_ended
from lightlink.connection.connection import NoReply
from lightlink.errors import (
    AgentOffline,
    ClosedError,
    DecodeError,
    InvalidOption,
    LightLinkError,
    MessageTimeout,
    NotReady,
    PermissionDenied,
    StoreUnavailable,
)
from lightlink.middleware import Call, run
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_id
from lightlink.protocol.subjects import as_text
from lightlink.protocol.text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import Waiter
    from lightlink.middleware import Middleware
    from lightlink.protocol.codec import HeaderMap

_log = logging.getLogger("lightlink")

# The type of the message that an agent answers with what there is to tell of its commands.
DESCRIBE = "_describe"

_MAX_WAITING = 1024
_MAX_WAITING_BYTES = 16 * 1024 * 1024
_MAX_ERROR_TEXT = 1024


def message_subject(client_id: str) -> str:
    """Return the subject of the messages to one agent."""
    return subjects.agent_messages(subjects.client_id(client_id))


class AgentMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as an agent gets it. With ``wait_ack`` the sender waits until it is handled.

    ``headers`` are those that came with it, whatever its body says of them.
    """

    msg_id: str
    type: str
    payload: Any = None
    sent_at: datetime
    issued_by: str = ""
    wait_ack: bool = False
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse, as it is decoded, an id that could not be one token of the subject of the answer."""
        if not subjects.is_plain_token(self.msg_id):
            raise ValueError(f"an id that is not one token of a subject: {self.msg_id[:64]!r}")


class _Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    error: str = ""
    commands: dict[str, dict[str, str]] | None = None  # the answer to DESCRIBE


@attrs.frozen(kw_only=True)
class Receipt:
    """What became of a message: which agents have ``reached``, and which of those failed to handle it, and how.

    ``online`` is how many agents there were to be reached.
    """

    msg_id: str
    online: int
    reached: tuple[str, ...]
    errors: dict[str, str]


# The managing side ----------------------------------------------------------------------------------------------------


class _Sent:
    """A message under way: ``expected`` agents are to answer, ``done`` when they have or when nobody else will."""

    def __init__(self, message: AgentMessage, expected: frozenset[str], headers: HeaderMap | None = None) -> None:
        self.message = message
        self.headers = headers
        self.expected = expected
        self.acks: dict[str, _Ack] = {}
        self.done: Future[None] = Future()

    def note(self, client_id: str, ack: _Ack) -> None:
        """Take note of an agent's answer."""
        self.acks[client_id] = ack
        if self.expected <= self.acks.keys():
            self.finish(None)

    def finish(self, error: Exception | None) -> None:
        """End the wait; without effect when it has ended."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def receipt(self) -> Receipt:
        """Return what is known by now."""
        acks = dict(self.acks)
        errors = {client_id: ack.error for client_id, ack in acks.items() if ack.error}
        online = len(self.expected | acks.keys())
        return Receipt(msg_id=self.message.msg_id, online=online, reached=tuple(sorted(acks)), errors=errors)


class Messenger:
    """Sends messages in a manager's ``name`` and collects the answers."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._open: dict[str, _Sent] = {}
        self._route: Any = None
        self._lock = Condition()

    def send(self, client_id: str, message: AgentMessage, timeout: float, headers: HeaderMap | None = None) -> Receipt:
        """Send to one agent; raises AgentOffline, MessageTimeout, StoreUnavailable and the errors of publishing."""

        def last(call: Call) -> Receipt:
            sent = _Sent(_as_changed(message, call), frozenset({client_id}), call.headers)
            self._await(client_id, sent, timeout)
            return sent.receipt()

        return self._around(message, timeout, headers, (client_id,), last)

    def _await(self, client_id: str, sent: _Sent, timeout: float) -> None:
        """Send to one agent, and wait until it has answered."""
        try:
            self._exchange(message_subject(client_id), sent, timeout)
        except NoReply as exc:
            if not exc.sent:
                raise StoreUnavailable("sending a message", "not connected") from exc
            raise MessageTimeout(client_id, sent.message.msg_id, timeout) from None
        if not sent.acks:
            raise AgentOffline(client_id)

    def describe(self, client_id: str, message: AgentMessage, timeout: float) -> dict[str, dict[str, str]]:
        """Ask an agent what there is to tell of its commands; raises the errors of `send`, NotReady if it does not."""
        sent = _Sent(message, frozenset({client_id}))
        self._await(client_id, sent, timeout)
        (ack,) = sent.acks.values()
        if ack.commands is None:
            raise NotReady(f"agent {client_id!r}", "does not tell of its commands: it is older, or describe=False")
        return ack.commands

    def broadcast(
        self, message: AgentMessage, online: Iterable[str], timeout: float, headers: HeaderMap | None = None
    ) -> Receipt:
        """Send to all agents, and wait until all that are ``online`` have answered, at most ``timeout`` seconds."""

        def last(call: Call) -> Receipt:
            sent = _Sent(_as_changed(message, call), frozenset(online), call.headers)
            try:
                self._exchange(subjects.BROADCAST, sent, timeout)
            except NoReply as exc:
                if not exc.sent:
                    raise StoreUnavailable("sending a message", "not connected") from exc
            return sent.receipt()

        return self._around(message, timeout, headers, (), last)

    def _around(
        self,
        message: AgentMessage,
        timeout: float,
        headers: HeaderMap | None,
        to: tuple[str, ...],
        last: Callable[[Call], Receipt],
    ) -> Receipt:
        """Send a message with middleware around it."""
        sent = dict(logs.outgoing(headers) or {})
        call = Call(kind="notify", name=message.type, args=message.payload, headers=sent, timeout=timeout, to=to)
        receipt: Receipt = self._connection.middleware.run(call, last)
        return receipt

    def stop(self) -> None:
        """Collect no more answers."""
        with self._lock:
            route, self._route = self._route, None
        if route is not None:
            self._connection.session.unroute(route, 1.0)
        for sent in list(self._open.values()):
            sent.finish(ClosedError("the command manager"))

    def compose(self, message_type: str, payload: Any, wait_ack: bool, issued_by: str | None) -> AgentMessage:
        """Return a message in the name of ``issued_by``, by default the manager's; raises InvalidOption."""
        checks.text("message type", message_type)
        checks.text_or_none("issued_by", issued_by)
        return AgentMessage(
            msg_id=new_id(),
            type=message_type,
            payload=payload,
            sent_at=self._connection.clock.now(),
            issued_by=issued_by or self._name,
            wait_ack=wait_ack,
        )

    def _exchange(self, subject: str, sent: _Sent, timeout: float) -> None:
        """Publish, and wait for the answers, or for the server's word that nobody listens; raises NoReply."""
        self._listen()
        body = codec.encode_json(sent.message, f"the message {sent.message.type!r}")
        self._open[sent.message.msg_id] = sent

        def settled(waiter: Waiter) -> None:
            # Agents answer elsewhere: on its inbox the request hears only from the server, that there is no agent.
            sent.finish(waiter.error)

        try:
            withdraw = self._connection.request_async(subject.encode(), body, timeout, settled, _maker(sent.headers))
            try:
                if not has_ended(sent.done, timeout + 1):
                    raise NoReply(subject, timeout, True)
                sent.done.result()
            finally:
                withdraw()
        finally:
            del self._open[sent.message.msg_id]

    def _listen(self) -> None:
        with self._lock:
            if self._route is None:
                self._route = self._connection.subscribe(subjects.agent_ack("*", "*"), "", self._arrive)

    def _arrive(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        _, _, client_id, msg_id = as_text(subject).split(".", 3)
        sent = self._open.get(msg_id)
        if sent is not None:
            self._connection.session.notifier.post(self._note, sent, client_id, data)

    def _note(self, sent: _Sent, client_id: str, data: bytes) -> None:
        try:
            sent.note(client_id, records.read(data, subjects.agent_ack(client_id, "*"), _Ack))
        except DecodeError as exc:
            self._connection.report(exc)


def _as_changed(message: AgentMessage, call: Call) -> AgentMessage:
    """Return a message with the payload that middleware has left."""
    return message if call.args is message.payload else msgspec.structs.replace(message, payload=call.args)


def _maker(headers: HeaderMap | None) -> Callable[[float], bytes] | None:
    """Return what makes the headers of a request, None for no headers."""
    if not headers:
        return None
    block = codec.encode_headers(codec.checked_headers(headers))
    return lambda _: block


# The agent's side -----------------------------------------------------------------------------------------------------


class MessageHandlers:
    """The functions of an agent that handle messages, by type; None stands for every type without one of its own."""

    def __init__(self) -> None:
        self.middleware: tuple[Middleware, ...] = ()
        self._functions: dict[str | None, Callable[[AgentMessage], object]] = {}

    def add(self, message_type: str | None, function: Callable[[AgentMessage], object]) -> None:
        """Register a function; raises InvalidOption when there is one."""
        if message_type in self._functions:
            raise InvalidOption("on_message", "has a function already", message_type)
        self._functions[message_type] = function

    def __len__(self) -> int:
        return len(self._functions)

    def find(self, message_type: str) -> Callable[[AgentMessage], object] | None:
        """Return the function for a message."""
        return self._functions.get(message_type) or self._functions.get(None)


class Inbox:
    """Takes an agent's messages and handles them in order, one at a time, beside its commands.

    ``commands`` is what it tells of its commands to who asks; None tells nothing.
    """

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        handlers: MessageHandlers,
        commands: dict[str, dict[str, str]] | None = None,
    ) -> None:
        self._connection = connection
        self._commands = commands
        self._client_id = client_id
        self._handlers = handlers
        self._routes: list[Any] = []
        self._box: Mailbox | None = None

    def start(self) -> None:
        """Subscribe; raises PermissionDenied when the agent has handlers and may not."""
        box = self._box = Mailbox(self._connection.session.workers, self._handle, _MAX_WAITING, _MAX_WAITING_BYTES)
        try:
            for subject in (message_subject(self._client_id), subjects.BROADCAST):
                self._routes.append(self._connection.subscribe(subject, "", partial(self._arrive, box)))
        except PermissionDenied as exc:
            if self._handlers:
                raise
            _log.debug("lightlink: agent %s takes no messages: %s", self._client_id, exc)

    def stop(self, timeout: float) -> None:
        """Take no more messages, and let the handler finish, within ``timeout`` seconds."""
        for route in self._routes:
            self._connection.session.unroute(route, timeout)
        if self._box is None:
            return
        if not self._box.drain(timeout):
            _log.warning("lightlink: agent %s stops with messages not handled", self._client_id)
        self._box.close()

    def _arrive(self, box: Mailbox, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        try:
            message = records.read(data, subject.decode(), AgentMessage, "sent_at")
            message = msgspec.structs.replace(message, headers=dict(codec.decode_headers(headers)))
        except DecodeError as exc:
            self._connection.session.report(exc)
            return
        function = self._handlers.find(message.type)
        if message.type == DESCRIBE:
            self._answer(message, commands=self._commands)
        elif function is None:
            self._answer(message, f"the agent takes no messages of type {message.type!r}")
        elif not box.put((function, message), len(data)):
            self._answer(message, f"the agent is busy: {_MAX_WAITING} messages wait already")
        elif not message.wait_ack:
            self._answer(message)

    def _handle(self, entry: tuple[Callable[[AgentMessage], object], AgentMessage]) -> None:
        function, message = entry
        error = ""
        logs.enter({"client_id": self._client_id}, message.headers)
        call = Call(
            kind="message", name=message.type, args=message.payload, headers=dict(message.headers), message=message
        )
        try:
            run_handler(run, self._handlers.middleware, call, lambda given: function(_as_changed(message, given)))
        except BaseException as exc:
            _log.exception("lightlink: agent %s failed on the message %r", self._client_id, message.type)
            error = f"{type(exc).__name__}: {text_of(exc)}"[:_MAX_ERROR_TEXT]
        if message.wait_ack:
            self._answer(message, error)

    def _answer(
        self, message: AgentMessage, error: str = "", commands: dict[str, dict[str, str]] | None = None
    ) -> None:
        subject = subjects.agent_ack(self._client_id, message.msg_id).encode()
        try:
            # On the loop's thread nothing may wait for room in the outbox.
            self._connection.publish(subject, codec.encode_json(_Ack(error, commands)), timeout=0.0)
        except LightLinkError as exc:
            _log.warning("lightlink: agent %s could not acknowledge a message: %s", self._client_id, exc)
