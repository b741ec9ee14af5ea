"""The serving side of RPC: request -> worker -> reply (wire format: docs/wire.md)."""

from __future__ import annotations

import difflib
import logging
import re
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from lightlink import logs
from lightlink.binding import Binder, BindError
from lightlink.concurrency.forks import run_handler
from lightlink.concurrency.threads import Condition, wait_until
from lightlink.describe import describe
from lightlink.errors import DecodeError, EncodeError, LightLinkError, PayloadTooLarge, ResourceExhausted
from lightlink.middleware import Call, run
from lightlink.protocol import codec
from lightlink.protocol.subjects import as_text, is_inbox, method_of
from lightlink.protocol.text import text_of
from lightlink.service.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Context

    from lightlink.client import Client
    from lightlink.concurrency.workers import WorkerPool
    from lightlink.connection.connection import Connection
    from lightlink.describe import Description
    from lightlink.middleware import Middleware, Proceed

_log = logging.getLogger("lightlink")
_TIMEOUT_MS = re.compile(rb"\r\nLightLink-Timeout-Ms: *(\d{1,12})\r\n", re.IGNORECASE)
# An exception's text may be anything, say the repr of an array; it must neither fill a reply nor break a header.
_MAX_ERROR_TEXT = 4096
_MAX_HEADER_TEXT = 256
# So long a name is compared with so many, whoever sends it.
_MAX_GUESSED, _MAX_COMPARED = 64, 200
# A method remembers when so many of its last requests began, and how long they took.
RECENT = 256
# No other header of ours fits beside the time that remains in so many bytes.
_ONLY_TIMEOUT = 60


@attrs.define
class MethodStats:
    """What a method has done since the service started; times in seconds."""

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_time: float = 0.0


@attrs.frozen(kw_only=True)
class ServiceStats:
    """What a service has done since it started, and what it holds.

    ``busy`` are requests refused because too many waited, ``unknown`` those for no method of its, ``held`` those that
    wait or run now.
    """

    methods: Mapping[str, MethodStats]
    busy: int
    unknown: int
    held: int


@attrs.define(eq=False)
class Method:
    """A registered handler, compiled; ``around`` is all the middleware there is, once the service runs."""

    name: str
    binder: Binder
    metadata: Mapping[str, str]
    facts: Mapping[str, str]
    context: Context
    middleware: tuple[Middleware, ...]
    description: Description
    around: tuple[Middleware, ...] = ()
    stats: MethodStats = attrs.field(factory=MethodStats)
    # When each of the last requests began, by `time.monotonic`, and how many seconds it took; newest last.
    recent: deque[tuple[float, float]] = attrs.field(factory=lambda: deque(maxlen=RECENT))


class Rejection(Exception):
    """A request that is answered with an error. For use inside the library."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def _wrapping(key: str) -> Middleware:
    def wrap(call: Call, proceed: Proceed) -> dict[str, Any]:
        return {key: proceed(call)}

    return wrap


class Dispatcher:
    """Takes requests off the loop, runs handlers on ``pool`` and puts the replies back into the outbox.

    Besides one for each worker, at most ``max_pending`` requests are held; what comes beyond is answered ``busy`` at
    once.
    """

    def __init__(self, service: str, pool: WorkerPool, max_pending: int) -> None:
        self._service = service
        self._pool = pool
        self._max_pending = max_pending
        # Not the pool's own count of what waits: it would refuse what idle workers are just about to take.
        self._most = pool.size + max_pending
        self.methods: dict[str, Method] = {}
        self._hidden: dict[str, Method] = {}
        self.suggests = True  # to those who ask for a method that there is not, one that they may have meant
        self.strays = 0  # requests for methods that do not exist
        self.busy = 0  # requests refused because too many were held
        self._connection: Connection
        self._client: Client
        self.strangers = 0  # requests that wanted their answer elsewhere than in an inbox
        self._inboxes: tuple[bytes, ...] = ()
        self._held = 0
        self._idle = Condition()

    def add(
        self,
        name: str,
        handler: Callable[..., Any],
        metadata: Mapping[str, str],
        middleware: tuple[Middleware, ...] = (),
        *,
        hidden: bool = False,
        wrap: str | None = None,
    ) -> None:
        """Compile and register a handler; one that is ``hidden`` is found by its name alone.

        ``wrap`` is the key under which its result goes into an object.
        """
        facts = {"service": self._service, "method": name}
        binder = Binder(handler, {Request: "request"})
        told = describe(binder)
        if wrap is not None:
            told = told.within(wrap)
            middleware = (*middleware, _wrapping(wrap))
        made = Method(name, binder, dict(metadata), facts, logs.context_of(facts), middleware, told)
        (self._hidden if hidden else self.methods)[name] = made

    def told(self) -> ServiceStats:
        """Return what there is to tell."""
        methods = {name: method.stats for name, method in self.methods.items()}
        return ServiceStats(methods=methods, busy=self.busy, unknown=self.strays, held=self._held)

    def attach(self, connection: Connection, inboxes: tuple[bytes, ...]) -> None:
        """Set where replies go, before the first request comes.

        They go below ``_INBOX`` and these ``inboxes`` only: the subject is the caller's choice, the right to publish
        there is the service's.
        """
        self._connection = connection
        self._inboxes = inboxes

    def surround(self, client: Client, middleware: tuple[Middleware, ...]) -> None:
        """Set which client handlers have and what is around every one, before the first request comes."""
        self._client = client
        for method in self.methods.values():
            method.around = (*middleware, *method.middleware)

    def answer_here(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bytes:
        """Return the body of the answer to a request, whose handler runs in this thread."""
        name = method_of(subject)
        method = self.methods.get(name) or self._hidden.get(name)
        try:
            if method is None:
                raise Rejection(codec.METHOD_NOT_FOUND, f"method not found: {name}{self._suggestion(name)}")
            envelope = self._read(subject, name, data)
            context = method.context.copy()
            return context.run(self._result, method, envelope, reply, headers, time.monotonic())
        except Rejection as rejection:
            return codec.encode_failure(codec.peek_request_id(data), rejection.code, rejection.message)

    def begin_anew(self, pool: WorkerPool) -> None:
        """Hold nothing, and run handlers on another pool: in a forked child, where the parent's threads are not.

        What the parent has done is the parent's to tell: who adds up all instances would count it several times.
        """
        self._pool = pool
        self._held = self.strays = self.busy = self.strangers = 0
        for method in (*self.methods.values(), *self._hidden.values()):
            method.stats = MethodStats()
            method.recent.clear()
        self._idle = Condition()

    def may_answer(self, reply: bytes) -> bool:
        """Tell whether an answer may go to a reply subject; one that may not is counted, and the first is logged."""
        if is_inbox(reply, self._inboxes):
            return True
        self.strangers += 1
        if self.strangers == 1:
            _log.warning(
                "lightlink: %s does not answer on %r, which is no inbox; if callers have inboxes of their own, name "
                "them: Service(..., inboxes=[...])",
                self._service,
                as_text(reply),
            )
        return False

    def arrive(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Queue a request; called on the loop's thread."""
        with self._idle:
            taken = self._held < self._most
            self._held += taken
        if taken:
            try:
                self._pool.put(self._serve, subject, reply, data, headers, time.monotonic())
            except ResourceExhausted as exc:
                self._release()
                _log.error("lightlink: %s cannot take a request: %s", self._service, exc)
            else:
                return
        self.busy += 1
        busy = Rejection(codec.BUSY, f"{self._service} is busy: {self._max_pending} requests wait already")
        self._note(subject)
        try:
            # The loop may not wait for room: a reply that finds none is dropped, and the caller times out.
            self._reject(subject, reply, codec.peek_request_id(data), busy, timeout=0.0)
        except LightLinkError as exc:
            _log.warning("lightlink: %s could not refuse a request: %s", self._service, exc)

    def drain(self, timeout: float) -> bool:
        """Wait until every request taken is answered; tell whether it was within ``timeout`` seconds."""
        with self._idle:
            return wait_until(self._idle, lambda: self._held == 0, timeout)

    def _release(self) -> None:
        with self._idle:
            self._held -= 1
            if self._held == 0:
                self._idle.notify_all()

    def _serve(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None, arrived: float) -> None:
        """Answer one request; runs on a worker."""
        name = method_of(subject)
        method = self.methods.get(name) or self._hidden.get(name)
        try:
            if method is None:
                self._refuse(subject, reply, name, data)
            else:
                method.stats.requests += 1
                # Each handler has a context of its own: nothing that it sets there is seen by the next one.
                method.context.copy().run(self._answer, method, subject, reply, data, headers, arrived)
        except LightLinkError as exc:
            _log.error("lightlink: %s could not reply on %r: %s", self._service, reply, exc)
        finally:
            self._release()

    def _refuse(self, subject: bytes, reply: bytes, name: str, data: bytes) -> None:
        """Answer a request for a method that there is not."""
        rejection = Rejection(codec.METHOD_NOT_FOUND, f"method not found: {name}{self._suggestion(name)}")
        try:
            self._read(subject, name, data)
        except Rejection as exc:
            rejection = exc
        self._reject(subject, reply, codec.peek_request_id(data), rejection)

    def _suggestion(self, name: str) -> str:
        if not self.suggests or len(name) > _MAX_GUESSED or len(self.methods) > _MAX_COMPARED:
            return ""
        close = difflib.get_close_matches(name, self.methods, 1)
        return f" (did you mean {close[0]}?)" if close else ""

    def _answer(
        self, method: Method, subject: bytes, reply: bytes, data: bytes, headers: bytes | None, arrived: float
    ) -> None:
        """Answer a request for a method."""
        request_id: str | None = None
        try:
            envelope = self._read(subject, method.name, data)
            request_id = envelope.id
            body = self._result(method, envelope, reply, headers, arrived)
        except Rejection as rejection:
            self._reject(subject, reply, request_id or codec.peek_request_id(data), rejection)
        else:
            self._reply(subject, reply, request_id, body)

    def _read(self, subject: bytes, method: str, data: bytes) -> codec.Request:
        try:
            envelope = codec.decode_request(data, as_text(subject))
        except DecodeError as exc:
            raise Rejection(codec.INVALID_REQUEST, f"invalid request: {exc.reason}") from None
        if envelope.method != method:
            problem = f"invalid request: the subject says {method!r}, the body {envelope.method!r}"
            raise Rejection(codec.INVALID_REQUEST, problem)
        return envelope

    def _result(
        self, method: Method, envelope: codec.Request, reply: bytes, headers: bytes | None, arrived: float
    ) -> bytes:
        """Return the body of a success reply, or raise the Rejection that says why there is none."""
        deadline = _deadline(headers, arrived)
        if headers is not None and (deadline is None or len(headers) > _ONLY_TIMEOUT):
            logs.enter(method.facts, headers)
        elif "structlog" in sys.modules:
            logs.tell_structlog()
        started = time.monotonic()
        if deadline is not None and started > deadline:
            waited = f"waited {started - arrived:.3f} s for a worker"
            raise Rejection(codec.DEADLINE_EXCEEDED, f"{envelope.method} was not run: the request {waited}")
        try:
            kwargs = method.binder.bind(bytes(envelope.args))
            return codec.encode_success(envelope.id, self._run(method, kwargs, reply, headers, deadline))
        except BindError as exc:
            raise Rejection(codec.INVALID_ARGUMENTS, f"{envelope.method}: {exc}") from None
        except EncodeError as exc:
            _log.error("lightlink: %s.%s returned what cannot be encoded: %s", self._service, method.name, exc.reason)
            raise Rejection(codec.HANDLER_ERROR, f"EncodeError: {exc}") from None
        finally:
            took = time.monotonic() - started
            method.stats.processing_time += took
            method.recent.append((started, took))

    def _run(
        self, method: Method, kwargs: dict[str, Any], reply: bytes, headers: bytes | None, deadline: float | None
    ) -> Any:
        try:
            if not method.around and not method.binder.injects:
                return run_handler(method.binder.call, kwargs, {})
            request = Request(self._service, method.name, codec.decode_headers(headers), deadline, self._client)
            return run_handler(self._call_around, method, kwargs, request)
        except BaseException as exc:
            # The caller learns type and text; the traceback is for the service's own log.
            _log.exception(
                "lightlink: %s.%s failed (caller %s, correlation id %s)",
                self._service,
                method.name,
                as_text(reply.rpartition(b".")[0]) or "unknown",
                logs.correlation_id(),
            )
            raise Rejection(codec.HANDLER_ERROR, f"{type(exc).__name__}: {text_of(exc)}") from None

    def _call_around(self, method: Method, kwargs: dict[str, Any], request: Request) -> Any:
        call = Call(
            kind="serve",
            name=f"{self._service}.{method.name}",
            args=kwargs,
            headers=request.headers,
            timeout=None if request.deadline is None else request.remaining(),
            request=request,
        )
        return run(method.around, call, lambda given: method.binder.call(given.args, {"request": request}))

    def _note(self, subject: bytes) -> None:
        """Count a request, whatever will be answered."""
        method = self._method_of(subject)
        if method is not None:
            method.stats.requests += 1

    def _method_of(self, subject: bytes) -> Method | None:
        return self.methods.get(method_of(subject))

    def _reply(self, subject: bytes, reply: bytes, request_id: str, body: bytes) -> None:
        if not reply or not self.may_answer(reply):
            return
        try:
            self._connection.publish(reply, body)
        except PayloadTooLarge as exc:
            problem = f"PayloadTooLarge: the result has {exc.size} bytes; the server takes at most {exc.limit}"
            self._reject(subject, reply, request_id, Rejection(codec.HANDLER_ERROR, problem))

    def _reject(
        self,
        subject: bytes,
        reply: bytes,
        request_id: str | None,
        rejection: Rejection,
        timeout: float | None = None,
    ) -> None:
        message = _shorten(rejection.message, _MAX_ERROR_TEXT)
        method = self._method_of(subject)
        if method is not None:
            method.stats.errors += 1
            method.stats.last_error = message
        else:
            self.strays += 1
        if not reply or not self.may_answer(reply):
            return
        headers = {
            codec.ERROR_HEADER: _one_line(_shorten(message, _MAX_HEADER_TEXT)),
            codec.ERROR_CODE_HEADER: str(codec.STATUS_OF_CODE[rejection.code]),
        }
        body = codec.encode_failure(request_id, rejection.code, message)
        self._connection.publish(reply, body, headers=codec.encode_headers(headers), timeout=timeout)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _deadline(headers: bytes | None, arrived: float) -> float | None:
    """Return the instant at which the caller gives up, from the header LightLink-Timeout-Ms; None without one."""
    found = _TIMEOUT_MS.search(headers) if headers else None
    return arrived + int(found[1]) / 1000 if found else None
