"""The calling side of RPC: envelopes out, results or typed errors back (wire format: docs/wire.md)."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink import logs
from lightlink.concurrency.threads import pause
from lightlink.connection.connection import NoReply, Status
from lightlink.errors import (
    CallError,
    CallTimeout,
    InvalidOption,
    LightLinkError,
    ServiceUnavailable,
)
from lightlink.middleware import Call
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_id
from lightlink.rpc.futures import CallFuture, as_given, call_on_thread, refuse_callbacks
from lightlink.rpc.results import read_result
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import Waiter
    from lightlink.middleware import Stack
    from lightlink.protocol.codec import HeaderMap
    from lightlink.rpc.results import Reader
    from lightlink.rpc.retry import Retry


class EndpointInfo(msgspec.Struct):
    """What a service says of one of its methods (ADR-32)."""

    name: str
    metadata: dict[str, Any] | None = None


class ServiceInfo(msgspec.Struct):
    """What a service says of itself (ADR-32), as far as it matters here."""

    endpoints: list[EndpointInfo] | None = None


class Caller:
    """Makes calls over a connection. ``timeout`` is the default, in seconds."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._readers: dict[Any, Reader] = {}

    def call(
        self,
        service: str,
        method: str,
        args: Any,
        timeout: float | None,
        returns: Any,
        retry: Retry | None = None,
        headers: HeaderMap | None = None,
    ) -> Any:
        """Call a method and return its result; see `Client.call`."""
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        if retry is not None:
            _check(retry)
        if self._connection.middleware.is_used:
            return self._call_around(service, method, args, limit, returns, retry, headers)
        if retry is None:
            return self._call_once(service, method, args, limit, returns, headers)
        return self._call_until(service, method, args, limit, returns, retry, headers)

    def _call_around(
        self,
        service: str,
        method: str,
        args: Any,
        limit: float,
        returns: Any,
        retry: Retry | None,
        headers: HeaderMap | None,
    ) -> Any:
        """Make a call with middleware around it, repetitions included."""

        def last(call: Call) -> Any:
            limit = self._timeout if call.timeout is None else seconds("timeout", call.timeout)
            if retry is None:
                return self._call_once(service, method, call.args, limit, returns, call.headers)
            return self._call_until(service, method, call.args, limit, returns, retry, call.headers)

        sent = dict(logs.outgoing(headers) or {})
        call = Call(kind="call", name=f"{service}.{method}", args=args, headers=sent, timeout=limit)
        return self._connection.middleware.run(call, last)

    def _call_until(
        self,
        service: str,
        method: str,
        args: Any,
        limit: float,
        returns: Any,
        retry: Retry,
        headers: HeaderMap | None,
    ) -> Any:
        """Make a call again and again, as long as ``retry`` says.

        Where no attempt was answered and one of them may have run, the error says so, whatever became of the last.
        """
        doubt: CallError | None = None
        for attempt in itertools.count(1):
            try:
                return self._call_once(service, method, args, limit, returns, headers)
            except CallError as exc:
                did_not_run = _did_not_run(exc)
                is_repeated = retry.wants(exc, attempt) and (
                    did_not_run or retry.idempotent or self._is_declared_idempotent(service, method, limit)
                )
                if not is_repeated:
                    if did_not_run and doubt is not None:
                        raise doubt from exc
                    raise
                doubt = doubt if did_not_run else exc
            pause(retry.pause(attempt))
        raise AssertionError("unreachable")

    def _is_declared_idempotent(self, service: str, method: str, timeout: float) -> bool:
        """Ask one instance of the service what it says of its method (service discovery, ADR-32); no answer is a no.

        Each time anew: another version may serve by now, and asking is rare.
        """
        subject = subjects.discovery_subject("INFO", service)
        try:
            waiter = self._connection.request(subject.encode(), b"", timeout)
            if codec.is_no_responders(waiter.data, waiter.headers):
                return False
            info = codec.decode(waiter.data, subject, ServiceInfo)
        except LightLinkError:
            return False  # there is an error to raise already: the call's own
        told = [each.metadata or {} for each in info.endpoints or () if each.name == method]
        return any(metadata.get("idempotent") == "true" for metadata in told)

    def _call_once(
        self,
        service: str,
        method: str,
        args: Any,
        limit: float,
        returns: Any,
        headers: HeaderMap | None,
    ) -> Any:
        read = self._reader(returns)
        subject = subjects.call_subject(service, method)
        request_id = new_id()
        payload = codec.encode_request(request_id, method, {} if args is None else args)
        try:
            waiter = self._connection.request(subject, payload, limit, _header_maker(headers), request_id.encode())
        except NoReply as exc:
            raise _no_reply(service, method, limit, exc, self._connection.status) from None
        return _result(service, method, request_id, waiter, read)

    def begin(
        self, service: str, method: str, args: Any, limit: float, returns: Any, headers: HeaderMap | None
    ) -> OpenCall | SubmittedCall:
        """Send a call, and return what brings its result."""
        if self._connection.middleware.is_used:
            return SubmittedCall(self.submit(service, method, args, limit, returns, headers))
        return OpenCall(self._connection, service, method, args, limit, self._reader(returns), headers)

    def _reader(self, returns: Any) -> Reader:
        """Return what reads a result; raises InvalidOption, before anything is sent, for a type that cannot be."""
        try:
            if returns not in self._readers:
                self._readers[returns] = codec.decoder(returns)
            return self._readers[returns]
        except TypeError as exc:
            raise InvalidOption("returns", f"cannot be converted to: {exc}", returns) from exc

    def submit(
        self,
        service: str,
        method: str,
        args: Any,
        timeout: float | None,
        returns: Any,
        headers: HeaderMap | None = None,
    ) -> Future[Any]:
        """Call a method and return a future of its result; see `Client.submit`."""
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        read = self._reader(returns)
        stack = self._connection.middleware
        if stack.entries:
            return self._submit_around(service, method, args, limit, returns, headers)
        started = time.monotonic()
        future = self._submit(service, method, args, limit, read, headers)
        if stack.observers:
            future.add_done_callback(partial(_observe, stack, f"{service}.{method}", started))
        return future

    def refuse_callbacks(self) -> None:
        """Raise ClosedError in a callback of a future, which would wait in vain for that of another."""
        refuse_callbacks(self._connection)

    def _submit(
        self, service: str, method: str, args: Any, limit: float, read: Reader, headers: HeaderMap | None
    ) -> Future[Any]:
        subject = subjects.call_subject(service, method)
        request_id = new_id()
        payload = codec.encode_request(request_id, method, {} if args is None else args)
        future = CallFuture(self._connection)

        def settle(waiter: Waiter) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if isinstance(waiter.error, NoReply):
                    raise _no_reply(service, method, limit, waiter.error, self._connection.status)
                if waiter.error is not None:
                    raise waiter.error
                result = _result(service, method, request_id, waiter, read)
            except Exception as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)

        withdraw = self._connection.request_async(
            subject, payload, limit, settle, _header_maker(headers), request_id.encode(), users=True
        )

        def note_cancel(done: Future[Any]) -> None:
            # Whoever waits for several futures at once is told only by this; `settle` does it when the reply is here.
            if done.cancelled() and withdraw():
                done.set_running_or_notify_cancel()

        future.add_done_callback(note_cancel)
        return future

    def _submit_around(
        self, service: str, method: str, args: Any, limit: float, returns: Any, headers: HeaderMap | None
    ) -> Future[Any]:
        """Make a call on a thread that middleware may wait on; what is wrong with it is raised here."""
        self._reader(returns)
        subjects.call_subject(service, method)
        headers = codec.checked_headers(headers) if headers else None
        args = as_given(args)

        def call(left: float) -> Any:
            if left <= 0:
                raise ServiceUnavailable(service, method, f"the call could not be sent within {limit:g} s")
            return self._call_around(service, method, args, left, returns, None, headers)

        return call_on_thread(self._connection, limit, call)


class OpenCall:
    """A call under way whose result one thread asks for."""

    def __init__(
        self,
        connection: Connection,
        service: str,
        method: str,
        args: Any,
        limit: float,
        read: Reader,
        headers: HeaderMap | None,
    ) -> None:
        self._connection = connection
        self._service = service
        self._method = method
        self._limit = limit
        self._read = read
        self._id = new_id()
        subject = subjects.call_subject(service, method)
        payload = codec.encode_request(self._id, method, {} if args is None else args)
        self._request = connection.begin_request(subject, payload, limit, _header_maker(headers), self._id.encode())

    def result(self) -> Any:
        """Wait for the result and return it; raises the errors of `Client.call`."""
        try:
            waiter = self._request.finish()
        except NoReply as exc:
            raise _no_reply(self._service, self._method, self._limit, exc, self._connection.status) from None
        return _result(self._service, self._method, self._id, waiter, self._read)

    def withdraw(self) -> None:
        """Wait for it no more."""
        self._request.withdraw()


class SubmittedCall:
    """A call under way on a thread of its own, with middleware around it."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def result(self) -> Any:
        """Wait for the result and return it; raises the errors of `Client.call`."""
        return self._future.result()

    def withdraw(self) -> None:
        """Wait for it no more."""
        self._future.cancel()


def _observe(stack: Stack, name: str, started: float, done: Future[Any]) -> None:
    # A call that was given up has neither brought a result nor failed.
    if not done.cancelled():
        stack.tell("call", name, started, done.exception())


def _timeout_header(remaining: float) -> bytes:
    return b"NATS/1.0\r\nLightLink-Timeout-Ms: %d\r\n\r\n" % max(1, int(remaining * 1000))


def _header_maker(headers: HeaderMap | None) -> Callable[[float], bytes]:
    """Return what makes a request's headers as it leaves: the caller's, and the time that remains then."""
    headers = logs.outgoing(headers)
    if not headers:
        return _timeout_header
    # Ours is the first of its name, which counts: nobody overrides the deadline by a header.
    lines = codec.encode_headers(codec.checked_headers(headers)).removeprefix(b"NATS/1.0\r\n")
    return lambda remaining: _timeout_header(remaining).removesuffix(b"\r\n") + lines


def _no_reply(
    service: str, method: str, timeout: float, exc: NoReply, status: Status
) -> CallTimeout | ServiceUnavailable:
    if exc.sent:
        return CallTimeout(service, method, timeout)
    if status is Status.CONNECTED:  # much is waiting to be sent, or the time was very short
        return ServiceUnavailable(service, method, f"the call could not be sent within {timeout:g} s")
    return ServiceUnavailable(service, method, f"not connected for {timeout:g} s; the call was not sent")


def _result(service: str, method: str, request_id: str, waiter: Waiter, read: Reader) -> Any:
    """Return the result in a reply, or raise the error in it."""
    return read_result(service, method, request_id, waiter.subject.decode(), waiter.data, waiter.headers, read)


def _did_not_run(error: CallError) -> bool:
    from lightlink.rpc.retry import DID_NOT_RUN  # noqa: PLC0415 - most calls are made once

    return isinstance(error, DID_NOT_RUN)


def _check(retry: object) -> None:
    from lightlink.rpc.retry import Retry  # noqa: PLC0415 - most calls are made once

    if not isinstance(retry, Retry):
        raise InvalidOption("retry", "must be a lightlink.Retry", type(retry).__name__)
