"""nats-py's client with two seams: messages are delivered without a queue or task, and batches are written at once.

What is kept from nats-py: connecting, TLS, authentication, reconnecting, replaying subscriptions and JetStream
management. Only this module, `parser` and `transports` touch its private parts;
tests/connection/test_nats_client.py watches over them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import nats.errors
from nats.aio.client import DEFAULT_MAX_PAYLOAD_SIZE, Srv
from nats.aio.client import Client as NatsClient

from lightlink.connection.parser import WireParser
from lightlink.connection.transports.tcp import TcpTransport
from lightlink.errors import InvalidName
from lightlink.protocol.subjects import as_text, breaks_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from urllib.parse import ParseResult

    from nats.aio.subscription import Subscription

    from lightlink.connection.transports.base import Transport

    # (subject, reply subject, payload, header block), called on the loop's thread; must not block.
    Sink = Callable[[bytes, bytes, bytes, bytes | None], None]

_log = logging.getLogger("lightlink")

# Above this many bytes not yet taken by the kernel, writing pauses until the socket has caught up.
_CONGESTED_BYTES = 256 * 1024
_READ_BYTES = 32 * 1024
# Payloads from so many bytes on are joined to their frame.
_LARGE = 16 * 1024

# What the server says to one subscription more than it allows.
TOO_MANY_SUBSCRIPTIONS = "maximum subscriptions exceeded"

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r'\\(["\\])')


class TLSRequired(nats.errors.Error):
    """The server does not offer TLS, and without it nothing may be said to it."""

    def __str__(self) -> str:
        return "the server does not offer TLS"


# Subjects that were looked at, so that one published again and again costs a look-up. Emptied when it has grown.
_SAFE: set[bytes] = set()
_SAFE_KEPT = 2048
# Published to once, and not worth a place: what acknowledges a delivery of JetStream's.
_ONCE = b"$JS.ACK."


def refuse_unsafe(subject: bytes) -> None:
    """Raise InvalidName for a subject that would break its protocol line: what follows would be a command of its own.

    Names are checked where they are made or decoded; this is the wall behind that, for whatever was missed.
    """
    if subject in _SAFE:
        return
    if not subject or breaks_line(subject):
        raise InvalidName("subject", as_text(subject), "is empty, or contains white space or a control character")
    if subject.startswith(_ONCE):
        return
    if len(_SAFE) >= _SAFE_KEPT:
        _SAFE.clear()
    _SAFE.add(subject)


def publish_frame(subject: bytes, reply: bytes, payload: bytes, headers: bytes | None = None) -> bytes:
    """Return the protocol bytes that publish one message (PUB or HPUB); raises InvalidName."""
    if subject not in _SAFE:
        refuse_unsafe(subject)
    if reply and breaks_line(reply):
        raise InvalidName("reply subject", as_text(reply), "contains white space or a control character")
    size = len(payload)
    if size >= _LARGE:
        # Formatting moves what it has written as it grows: 45 us for 128 KiB, where joining takes 3.
        return b"".join((_head(subject, reply, size, headers), payload, b"\r\n"))
    if headers is None:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, size, payload)
    header_size = len(headers)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, header_size, header_size + size, headers, payload)


def _head(subject: bytes, reply: bytes, size: int, headers: bytes | None) -> bytes:
    """Return what comes before a payload of ``size`` bytes."""
    if headers is None:
        return b"PUB %b %b %d\r\n" % (subject, reply, size)
    return b"HPUB %b %b %d %d\r\n%b" % (subject, reply, len(headers), len(headers) + size, headers)


def read_frame(frame: bytes) -> tuple[bytes, int]:
    """Return subject and size of a message, headers included, from the protocol bytes that publish it."""
    words = frame[: frame.index(b"\r\n")].split(b" ")
    return words[1], int(words[-1])


class WireClient(NatsClient):
    """A nats-py client whose subscriptions made with `route` deliver straight from the parser.

    ``require_tls`` refuses a server that does not offer TLS before any credential is sent.
    ``on_denied`` is called with the operation and the subject when the server's permissions refuse one. ``make_tls``
    makes the TLS context for each handshake, ``make_transport`` the transport for a URL's scheme. Without ``discover``
    servers that others tell of are left alone. After the messages of each read ``end_read`` is called.
    """

    # The most bytes that the server takes. Not a property as nats-py's: every publish asks.
    max_payload: int = DEFAULT_MAX_PAYLOAD_SIZE

    def __init__(
        self,
        *,
        require_tls: bool,
        on_denied: Callable[[str, str], None],
        make_tls: Callable[[], ssl.SSLContext] | None = None,
        make_transport: Callable[[str], Transport] = lambda _: TcpTransport(),
        discover: bool = True,
        end_read: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._require_tls = require_tls
        self._make_tls = make_tls
        self._make_transport = make_transport
        self._on_denied = on_denied
        self._sinks: dict[int, Sink] = {}
        self._discover = discover
        self._is_given_up = False
        self._published = 0
        self._confirmed = 0
        # Whether the server takes less than it once did: what was let pass before may be too large as it leaves.
        self.may_exceed = False
        parser = WireParser(self, self._deliver, end_read)
        self._ps, self._take = parser, parser.take

    async def route(self, subject: str, queue: str, sink: Sink) -> Subscription:
        """Subscribe, with each message given to ``sink`` on the loop's thread as it is parsed."""
        for kind, name in (("subject", subject), ("queue group", queue)):
            if breaks_line(name.encode()):
                raise InvalidName(kind, name, "contains white space or a control character")
        sid = self._sid + 1
        self._sinks[sid] = sink
        try:
            return await self.subscribe(subject, queue=queue)
        except BaseException:
            del self._sinks[sid]
            raise

    def move_route(self, subscription: Subscription, subject: str) -> None:
        """Have a subscription listen to another subject from the next connection on; only while there is none."""
        subscription._subject = subject

    async def unroute(self, subscription: Subscription) -> None:
        """End a subscription made with `route`; without effect when it has ended."""
        self._sinks.pop(subscription._id, None)
        await self._unsubscribe(subscription)

    async def stop_route(self, subscription: Subscription) -> None:
        """Tell the server to send no more, and return once all it had sent has been delivered."""
        await self.stop_routes([subscription])

    async def stop_routes(self, subscriptions: Sequence[Subscription]) -> None:
        """Do what `stop_route` does for several at once."""
        for subscription in subscriptions:
            await self._unsubscribe(subscription)
        try:
            await self.flush()
        except (nats.errors.Error, OSError) as exc:
            # The connection is lost, and with it what was under way.
            _log.debug("lightlink: unsubscribing: %r", exc)

    def cut_routes(self, subscriptions: Sequence[Subscription]) -> None:
        """Deliver nothing more on subscriptions that were stopped."""
        for subscription in subscriptions:
            self._sinks.pop(subscription._id, None)

    async def _unsubscribe(self, subscription: Subscription) -> None:
        """Unsubscribe, if it is subscribed still; the sink stays."""
        if subscription._id in self._subs and not self.is_closed:
            await subscription.unsubscribe()

    @property
    def unconfirmed(self) -> int:
        """How many published messages were written since the server last answered all before."""
        return self._published - self._confirmed

    def note_published(self, messages: int) -> None:
        """Count messages that are about to be written, and that nobody waits for an answer to."""
        self._published += messages

    def forget_unconfirmed(self) -> None:
        """Begin to count anew: the connection is lost, and with it perhaps what was written to it."""
        self._confirmed = self._published

    def write(self, frames: Sequence[bytes]) -> None:
        """Write protocol bytes to the socket. Only to be called while connected."""
        assert self._transport is not None
        transport: Any = self._transport
        transport.write_frames(frames)

    def write_here(self, frame: bytes) -> bool:
        """Write a frame in a caller's thread, if nothing is before it; False says that `write` has to, on the loop."""
        transport: Any = self._transport
        return self.is_writable and bool(transport.write_here(frame))

    @property
    def is_writable(self) -> bool:
        """Whether it is connected, with no sign yet of the connection's end."""
        if not self.is_connected or self._transport is None:
            return False
        return not self._transport.at_eof() and not self._socket.is_closing()

    @property
    def server_version(self) -> tuple[int, int]:
        """The version of the server connected to last: major and minor."""
        major, minor, *_ = self._server_info.get("version", "0.0").split(".")
        return int(major), int(minor)

    @property
    def is_congested(self) -> bool:
        """Whether the socket takes less than is written to it."""
        return bool(self._socket.get_write_buffer_size() > _CONGESTED_BYTES)

    async def wait_decongested(self) -> None:
        """Return when the socket has caught up; raises OSError when the connection is lost."""
        await self._transport.drain()  # type: ignore[union-attr]

    def stay_connected(self, servers: Sequence[str], connect_timeout: float) -> None:
        """From now on reconnect whenever the connection is lost, for ever; ``connect_timeout`` seconds for each try.

        ``servers`` are tried as well as those of which the server has told last, the others of its cluster.
        """
        known = {server.uri.netloc for server in self._server_pool}
        uris = [self._parse_server_uri(server) for server in servers]
        self._server_pool += [Srv(uri) for uri in uris if uri.netloc not in known]
        self.options["allow_reconnect"] = True
        self.options["max_reconnect_attempts"] = -1
        self.options["connect_timeout"] = connect_timeout

    @property
    def was_told_of_server(self) -> bool:
        """Whether the server that is connected, or was tried last, is known only because another told of it."""
        return self._current_server is not None and self._current_server.discovered

    def forget_server(self) -> None:
        """Try the server that was tried last no more, until it is told of again."""
        if len(self._server_pool) > 1:
            self._server_pool = [each for each in self._server_pool if each is not self._current_server]

    async def resubscribe(self, subject: str) -> bool:
        """Ask for the subscriptions to a subject once more, which the server may have ended; False: there are none."""
        lines = [
            f"SUB {each.subject} {each.queue} {sid}\r\n".encode()
            for sid, each in self._subs.items()
            if each.subject == subject
        ]
        if lines:
            self.write(lines)
            await self.flush()
        return bool(lines)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for a handshake that is about to begin."""
        return super().ssl_context if self._make_tls is None else self._make_tls()

    @property
    def server(self) -> str:
        """The address of the server that is connected, or was tried last."""
        return "" if self._current_server is None else self._current_server.uri.geturl()

    async def ask_again(self, pause: float) -> None:
        """Connect once more to the server tried last, and listen for ``pause`` seconds before each word of ours.

        Raises what the server says, if that is an error, and the errors of connecting. The connection is given up.
        """
        if self._current_server is None:
            return
        limit = self.options["connect_timeout"]
        uri, name = self._current_server.uri, self._current_server.tls_name
        transport = self._make_transport(uri.scheme)
        try:
            await transport.connect(uri, _READ_BYTES, limit)
            hostname = self.options.get("tls_hostname") or name or str(uri.hostname)
            is_first = self.options.get("tls_handshake_first")
            if is_first:
                await transport.connect_tls(hostname, self.ssl_context, _READ_BYTES, limit)
            info = json.loads((await transport.readline()).removeprefix(b"INFO "))
            await transport.listen(pause)
            if is_first:
                pass  # it is done
            elif info.get("tls_required"):
                await transport.connect_tls(hostname, self.ssl_context, _READ_BYTES, limit)
                await transport.listen(pause)
            elif self._require_tls:
                raise TLSRequired
            self._server_info = info  # its nonce is what CONNECT signs
            transport.write(self._connect_command())
            await transport.listen(pause)
        finally:
            transport.abort()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # What cannot be written any more must not be: uvloop takes that for a mistake, and closing would end half-way.
        if not self.is_writable:
            self._pending = []
            self._pending_data_size = 0
        await super()._close(status, do_cbs)

    async def leave(self, keep: str) -> None:
        """Have the server send no more, except on subjects that begin with ``keep``; take what it had sent; reconnect.

        Each subscription is made anew on reconnecting.
        """
        try:
            self.write([b"UNSUB %d\r\n" % sid for sid, sub in self._subs.items() if not sub.subject.startswith(keep)])
            await self.flush()
        except (nats.errors.Error, OSError) as exc:
            _log.debug("lightlink: leaving the server: %r", exc)
        await self._process_op_err(nats.errors.Error("nats: the server is about to shut down"))

    def give_up(self) -> None:
        """Let go of the socket at once, and of one that is being opened as soon as it is."""
        self._is_given_up = True
        self._abort_transport()

    async def discard(self) -> None:
        """Give up a connection that never was one: nobody is called back, and nothing is waited for."""
        self.give_up()
        await self._close(NatsClient.CLOSED, do_cbs=False)

    async def flush(self, timeout: float = 10.0) -> None:
        """Return when the server has answered everything written so far; raises nats errors when it cannot.

        nats-py's own tells success when the connection has just been lost.
        """
        if not self.is_connected or self._reading_task is None or self._reading_task.done():
            raise nats.errors.StaleConnectionError
        published = self._published
        await super().flush(timeout)  # type: ignore[arg-type]  # it takes fractions of a second too
        self._confirmed = max(self._confirmed, published)

    def abandon(self) -> None:
        """Let go, in a forked child, of the parent's socket, without a word to the server.

        The descriptors are pointed at the null device: their owner (asyncio or uvloop) may close them later, and copies
        held open here would keep the server from seeing the parent's end.
        """
        transport: Any = self._transport
        inherited = [] if transport is None else transport.descriptors()
        if inherited:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in inherited:
                os.dup2(null, descriptor)
            os.close(null)

    def _deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        """Give a message to its sink; False when its subscription has none."""
        sink = self._sinks.get(sid)
        if sink is None:
            return False
        try:
            sink(subject, reply, data, headers)
        except Exception:
            # An exception here would end nats-py's read loop, and with it the connection.
            _log.exception("lightlink: a message on %r could not be delivered", subject)
        return True

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        # Nothing is written, as while disconnected: uvloop takes writing to what has just ended for a mistake.
        if not self.is_connected or self.is_writable:
            return await super()._flush_pending(force_flush)
        return None

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # nats-py writes the PING at once, and commands given before it, a SUB say, later: what would the PONG confirm?
        if self._pending_data_size > 0 and self.is_writable:
            assert self._transport is not None
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        # nats-py's read loop would end for good at a PONG that comes after its flush was given up.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        # nats-py's loop ends at an error it does not expect and leaves the connection open, but deaf.
        if self.is_connected and self._reading_task is asyncio.current_task():
            await self._process_op_err(nats.errors.Error("nats: reading from the server failed"))

    async def _connect_to_server(self, s: Any) -> None:
        # nats-py would take a transport of its own.
        s.last_attempt = time.monotonic()
        transport: Any = self._transport
        if transport is None or s.uri.scheme not in transport.schemes:
            # The one before, to a server of another kind, was aborted.
            transport = self._make_transport(s.uri.scheme)
            transport.take = self._take
            self._transport = transport
        await transport.connect(s.uri, _READ_BYTES, self.options["connect_timeout"])
        if self._is_given_up:  # being cancelled is lost where the connection is there in the same moment
            transport.abort()
            raise asyncio.CancelledError

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._require_tls and not info.get("tls_required"):
            raise TLSRequired
        await super()._process_info(info, initial_connection)
        # Behind a gateway these are addresses of another network, and could be anybody's.
        self._follow(() if self._is_behind_gateway else info.get("connect_urls") or ())
        # nats-py reads the limit once, from the first INFO; an account's own comes in the second, or after a reload.
        limit = info.get("max_payload")
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            self.may_exceed = self.may_exceed or limit < self.max_payload
            self.max_payload = self._max_payload = limit

    def _follow(self, told: Sequence[str]) -> None:
        """Know of the servers told of last, and no others, beside those given; nats-py keeps them all for ever."""
        discover = self._discover and not self._is_behind_gateway
        if told or not discover:
            self._server_pool = [
                each
                for each in self._server_pool
                if not each.discovered or each is self._current_server or (discover and each.uri.netloc in told)
            ]

    @property
    def _is_behind_gateway(self) -> bool:
        return self._current_server is not None and self._current_server.uri.scheme == "quic"

    @staticmethod
    def _parse_server_uri(connect_url: str) -> ParseResult:
        # nats-py knows other schemes only.
        return urlparse(connect_url) if connect_url.startswith("quic://") else NatsClient._parse_server_uri(connect_url)

    def _setup_server_pool(self, connect_url: str | list[str]) -> None:
        urls = [connect_url] if isinstance(connect_url, str) else connect_url
        self._server_pool += [Srv(self._parse_server_uri(url)) for url in urls]

    async def _process_err(self, err_msg: str) -> None:
        message = self._as_the_server_wrote_it(err_msg)
        denied = _denied_operation(message)
        if denied is not None:
            self._on_denied(*denied)
            return
        if TOO_MANY_SUBSCRIPTIONS in err_msg:
            # The connection stays; on a new one the same subscription would be one too many again.
            await self._error_cb(nats.errors.Error(f"nats: {err_msg}"))
            return
        # nats-py would close for good here. The server is about to hang up, and a reconnect heals most of its reasons;
        # a refusal that does not heal is recognised when the reconnect is refused too.
        error = nats.errors.Error(f"nats: {message}")
        await self._error_cb(error)
        await self._process_op_err(error)

    def _as_the_server_wrote_it(self, lowered: str) -> str:
        """Return an error's text with its capitals: nats-py lowers them, subjects included."""
        line = bytes(self._ps.buf).partition(b"\r\n")[0].decode("utf-8", "replace")
        start = line.lower().find(lowered)
        return line[start : start + len(lowered)] if start >= 0 else lowered

    async def _attempt_reconnect(self) -> None:
        # nats-py's own loop ends for good at an error of a type it does not expect, say from a server that speaks HTTP.
        while not self.is_closed:
            # Closed politely, a half-open connection would first have to take what is written to it already.
            self._abort_transport()
            try:
                await super()._attempt_reconnect()
                return
            except Exception as exc:
                _log.debug("lightlink: reconnecting failed: %r", exc)
                await asyncio.sleep(self.options["reconnect_time_wait"])

    def _abort_transport(self) -> None:
        transport: Any = self._transport
        if transport is not None:
            transport.abort()

    @property
    def _socket(self) -> Any:
        """The asyncio transport, None before there is one."""
        writer = getattr(self._transport, "_io_writer", None)
        return None if writer is None else writer.transport


def _denied_operation(message: str) -> tuple[str, str] | None:
    """Return (publish or subscribe, subject) from the text of a permissions violation, None from another."""
    if "permissions violation" not in message.lower():
        return None
    operation = "subscribe" if "for subscription" in message.lower() else "publish"
    quoted = _QUOTED.search(message)  # the server writes the subject as Go quotes a string
    return operation, _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""
