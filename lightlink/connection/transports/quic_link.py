"""Drive a QUIC connection (RFC 9000) on an event loop: datagrams in and out, its timer, its streams.

Only qh3's sans-I/O part, `qh3.quic`, is used; its events become calls of a few methods here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

# The arguments of qh3.quic.packet's transport parameter functions; a test pins the result.
from qh3._hazmat import Buffer
from qh3.quic import events
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.packet import QuicErrorCode, pull_quic_transport_parameters, push_quic_transport_parameters
from qh3.tls import ExtensionType

from lightlink.connection.transports.quic_errors import GatewayError
from lightlink.connection.transports.quic_stream import QuicStream
from lightlink.connection.transports.shortcut import is_own

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from qh3.quic.tls_bridge import QuicTlsBridge

    Address = Any  # (host, port); with flow info and scope id for IPv6

_log = logging.getLogger("lightlink")
# The core's error message once the peer has closed the connection.
_CLOSED = "connection is closed"
# The core sends an ACK for every second packet or after 1 ms, in a packet of its own if need be, and a packet costs
# more than its content. So the ACK of requests waits these seconds for the responses, which usually come sooner. A peer
# that sends more packets may be waiting for the ACK: its first window is ten of them.
_ACK_DELAY = 0.004
_MOST_UNACKNOWLEDGED = 8
# Milliseconds, announced to the peer: its probe timeout for a lost packet is a round trip plus this. qh3 announces 25,
# which would delay each call on a lossy link that lost a packet.
_MAX_ACK_DELAY = 8
_MOST_PARAMETERS = 4096
# qh3 logs a warning for each connection that the peer closes.
logging.getLogger("quic").setLevel(logging.CRITICAL)


class Core(QuicConnection):
    """qh3's, without the logs for which it takes each packet in hand, and with ACKs that come soon."""

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = super()._create_tls(remote_source_cid)
        self.write_parameters(bridge)
        return bridge

    def write_parameters(self, bridge: QuicTlsBridge) -> None:
        """Rewrite our transport parameters: qh3 has no setting for some of them."""
        parameters = pull_quic_transport_parameters(Buffer(data=bridge.serialize_transport_parameters()))
        parameters.max_ack_delay = _MAX_ACK_DELAY
        buffer = Buffer(capacity=_MOST_PARAMETERS)
        push_quic_transport_parameters(buffer, parameters)
        bridge.tls.handshake_extensions = [(ExtensionType.QUIC_TRANSPORT_PARAMETERS, buffer.data)]

    @property
    def peer(self) -> Address:
        """The peer's address, which never changes here: a gateway follows its clients itself."""
        return self._remote_addr

    def due(self, now: float) -> list[bytes]:
        """Return the datagrams to send."""
        due: list[bytes] = []
        if self._core is None:
            return due
        poll = self._core.poll_transmit
        try:
            while (found := poll(now)) is not None:
                due.append(found[0])
        except RuntimeError as exc:
            if not is_own(exc):
                raise
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, None, str(exc)) from exc
        return due

    def receive_many_datagrams(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        """Process datagrams received from an address."""
        if self._core is None or not self._handshake_complete:
            super().receive_many_datagrams(datagrams, addr, now)
            return
        self._call_core(self._core.receive_many_datagrams, datagrams, addr, now)
        self._drain_core()

    def get_timer(self) -> float | None:
        """Return when to call `handle_timer`; an ACK may be delayed to travel with other data."""
        timer = None if self._core is None else self._core.get_timer()
        if timer is None:
            return None
        return timer[1] + _ACK_DELAY if self._may_wait(timer) else timer[1]

    def get_ack_timer(self) -> float | None:
        """Return when to send the ACK that is all there is to send; None if it cannot be delayed."""
        timer = None if self._core is None or not self._handshake_confirmed else self._core.get_timer()
        return None if timer is None or not self._may_wait(timer) else timer[1] + _ACK_DELAY

    def _may_wait(self, timer: tuple[str, float]) -> bool:
        # Pacing has its own timer, which is hidden while the ACK's is due first.
        return timer[0] == "ack_application" and not self.get_send_buffer_size()

    @property
    def accept(self) -> Callable[[int, bytes, bool], None]:
        """What takes (stream, bytes, whether they are the last) without a line of Python."""
        accept: Callable[[int, bytes, bool], None] = self._require_core().send_stream
        return accept

    @property
    def is_settled(self) -> bool:
        """Whether the handshake is confirmed."""
        return self._handshake_confirmed


class Link:
    """One QUIC connection. ``send`` takes datagrams and their destination address.

    All is called on the loop's thread but `send_here`; whoever calls into the core holds ``lock``.
    """

    def __init__(self, quic: Core, send: Callable[[list[bytes], Address], object]) -> None:
        self.quic = quic
        self.lock = threading.RLock()
        self.streams: dict[int, QuicStream] = {}
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._transmitting: asyncio.Handle | None = None
        self._is_transmitting = False
        self._received = 0  # datagrams received since the last send
        self._latest = 0.0  # what the core was last told of the time
        self.ended = False

    # For the owner to redefine --------------------------------------------------------------------------------------

    def on_connected(self) -> None:
        """Handle the end of the handshake."""

    def on_ended(self, error: GatewayError) -> None:
        """Handle the end of the connection."""

    def on_stream(self, _number: int) -> QuicStream | None:
        """Return a stream for one that the peer opened, None to ignore it."""
        return None

    def on_forgotten(self) -> None:
        """Handle the end of a stream."""

    def extra_info(self) -> dict[str, Any]:
        """Return connection information by asyncio's names."""
        return {"peername": self.quic.peer}

    # Datagrams ------------------------------------------------------------------------------------------------------

    def receive(self, datagrams: list[bytes], address: Address) -> None:
        """Process datagrams received from an address."""
        self._attempt(self.quic.receive_many_datagrams, datagrams, address, self._now())
        self._handle_events()
        self._received += len(datagrams)
        has_many = self._received > _MOST_UNACKNOWLEDGED
        # With no ACK due there may be lost data to retransmit, which the core does not expose.
        due = None if has_many else self._attempt(self.quic.get_ack_timer)
        if due is None:
            # Later in this iteration of the loop: waiters run first, and their reply carries the ACK.
            self.transmit_soon()
        else:
            self._set_timer(due)

    def transmit(self) -> None:
        """Send what is due and set the timer."""
        if self._transmitting is not None:
            self._transmitting.cancel()
            self._transmitting = None
        self._received = 0
        self._is_transmitting = True  # a resumed writer writes here, synchronously
        try:
            due = self._attempt(self.quic.due, self._now())
            if due:
                self._send(due, self.quic.peer)
            self._set_timer(self._attempt(self.quic.get_timer))
            for stream in tuple(self.streams.values()):
                stream.look_at_buffer()
        finally:
            self._is_transmitting = False

    def transmit_soon(self) -> None:
        """Send once everything written in this iteration of the loop is queued."""
        if self._transmitting is None:
            self._transmitting = self._loop.call_soon(self.transmit)

    def _set_timer(self, due: float | None) -> None:
        """Set the core's timer. A later deadline, as after each packet, leaves the timer in place."""
        if self._timer is not None:
            if due is not None and self._timer_at <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_at = due
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        due = self._attempt(self.quic.get_timer)
        if due is None:
            return
        if due > self._timer_at and due > self._loop.time():
            self._set_timer(due)
            return
        self._attempt(self.quic.handle_timer, max(due, self._now()))
        self._handle_events()
        self.transmit()

    def _now(self) -> float:
        """Return the loop's time, never earlier than what the core was told last."""
        self._latest = max(self._loop.time(), self._latest)
        return self._latest

    def _attempt(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call into the core; an exception ends this connection only."""
        if self.ended:
            return None
        try:
            with self.lock:
                return function(*args)
        except QuicConnectionError as exc:
            if exc.reason_phrase == _CLOSED:
                return None  # the reason comes with the termination event
            self._end(GatewayError(exc.error_code, exc.reason_phrase, is_transport=True))
            return None

    # In a caller's thread -------------------------------------------------------------------------------------------

    def is_free(self, number: int) -> bool:
        """Whether what is sent now on a stream comes next; with the lock."""
        try:
            return not self.ended and not self.quic.get_send_buffer_size(number)
        except QuicConnectionError:
            return False  # the loop meets the same error

    def send_here(self, number: int, pieces: Sequence[bytes], taken: list[Any], udp: socket.socket) -> bool:
        """Send bytes on a stream past the loop, with the lock; False says that the connection has ended.

        To ``taken`` something is added once they are taken. From then on they arrive, whatever interrupts this: what is
        lost is sent again.
        """
        try:
            # All of it in C, where no signal handler comes between taking and noting it.
            taken.extend(map(self.quic.accept, itertools.repeat(number), pieces, itertools.repeat(False)))
        except RuntimeError as exc:
            if not is_own(exc):
                raise
            return False
        try:
            self._received = 0
            for datagram in self.quic.due(self._now_here()):
                _send_datagram(udp, datagram, self.quic.peer)
            due = self.quic.get_timer()
            if due is not None and (self._timer is None or due < self._timer_at):
                self._transmit_there()
        except QuicConnectionError:
            self._transmit_there()  # it meets the same error
        except BaseException:
            self._transmit_there()
            raise
        return True

    def _transmit_there(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the connection
            self._loop.call_soon_threadsafe(self.transmit)

    def _now_here(self) -> float:
        """Return the loop's time in another thread, never later than what the loop says next.

        uvloop says in milliseconds when it woke last, by a clock that may be one behind.
        """
        self._latest = max(self._now(), int(time.monotonic() * 1000 - 1) / 1000)
        return self._latest

    # What the core says ---------------------------------------------------------------------------------------------

    def _handle_events(self) -> None:
        received: dict[int, QuicStream] = {}
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                stream = self.streams.get(event.stream_id) or self.on_stream(event.stream_id)
                if stream is not None:
                    stream.receive(event.data, is_last=event.end_stream)
                    received[event.stream_id] = stream
            else:
                self._deliver(received)  # deliver data received before the end
                self._handle(event)
        self._deliver(received)

    def _deliver(self, received: dict[int, QuicStream]) -> None:
        for stream in received.values():
            stream.deliver()
        received.clear()

    def _handle(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamReset):
            if event.stream_id in self.streams:
                self.streams[event.stream_id].lose(GatewayError(event.error_code, ""))
        elif isinstance(event, events.HandshakeCompleted):
            self.on_connected()
        elif isinstance(event, events.ConnectionTerminated):
            # Transport and TLS errors carry a frame type; application errors do not.
            self._end(GatewayError(event.error_code, event.reason_phrase, is_transport=event.frame_type is not None))
        else:
            self.on_event(event)

    def on_event(self, event: events.QuicEvent) -> None:
        """Handle any other event of the core."""

    def _end(self, error: GatewayError) -> None:
        if self.ended:
            return
        self.ended = True
        self._set_timer(None)
        for stream in tuple(self.streams.values()):
            stream.lose(error)
        self.on_ended(error)

    # Streams --------------------------------------------------------------------------------------------------------

    def open_stream(self) -> QuicStream:
        """Open a stream; the peer sees it with its first bytes."""
        return self.add_stream(self.quic.get_next_available_stream_id())

    def add_stream(self, number: int) -> QuicStream:
        """Return a new stream with this id."""
        stream = self.streams[number] = QuicStream(self, number)
        return stream

    def send(self, number: int, data: Any) -> None:
        """Send bytes on a stream at once: the writer has batched them already."""
        self._attempt(self.quic.send_stream_data, number, data)
        if self._is_transmitting:
            self.transmit_soon()
        else:
            self.transmit()

    def unsent(self, number: int) -> int:
        """Return the number of unsent bytes of a stream."""
        size: int = self._attempt(self.quic.get_send_buffer_size, number) or 0
        return size

    def finish(self, number: int) -> None:
        """Send FIN after the queued data of a stream."""
        self._attempt(self.quic.send_stream_data, number, b"", True)
        self.transmit()

    def reset(self, number: int, code: int) -> None:
        """Reset a stream in both directions, with a reason."""
        for end in (self.quic.reset_stream, self.quic.stop_stream):
            with contextlib.suppress(ValueError):  # that direction has ended
                self._attempt(end, number, code)
        self.transmit_soon()

    def forget(self, number: int) -> None:
        """Remove an ended stream."""
        if self.streams.pop(number, None) is not None:
            self.on_forgotten()

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection; the peer is told the reason."""
        self._attempt(self.quic.close, code, None, reason)
        self.transmit()
        self._end(GatewayError(code, reason))


def _send_datagram(udp: socket.socket, datagram: bytes, address: Address) -> None:
    try:
        udp.sendto(datagram, address)
    except OSError as exc:
        if not is_own(exc):
            raise
        # as good as lost on the way
