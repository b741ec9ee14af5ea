"""Functions around what goes out and what comes in: the one seam for observing and intercepting.

::

    def timing(call, proceed):
        started = time.monotonic()
        try:
            return proceed(call)
        finally:
            log.info("%s %s took %.3f s", call.kind, call.name, time.monotonic() - started)

The first of several is the outermost. What goes through a client goes through the client's; what a service or agent
handles then through its own, and last through that of the method.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from lightlink.validators import functions

if TYPE_CHECKING:
    from collections.abc import Sequence


_log = logging.getLogger("lightlink")

Kind = Literal["call", "serve", "publish", "event", "consume", "file", "send", "command", "notify", "message", "watch"]


@attrs.define(eq=False, kw_only=True)
class Call:
    """What is under way, as middleware sees it.

    ``kind`` is what is done: ``call``, ``publish``, ``send`` (of commands) and ``notify`` (of a message to agents) on
    the way out; ``serve`` (a call), ``event``, ``consume`` (of durable events), ``file``, ``command``, ``message`` (to
    an agent) and ``watch`` (a change of state) on the way in. ``name`` is the method (``math.add``), the subject, the
    command's or message's type, the key; of a batch of durable events their consumer. ``args`` are the arguments, the
    data or the payload, a batch's messages, the change; what stands there when `proceed` is called is what is sent, or
    what the handler is given. So are ``headers``, on the way out. ``timeout`` is how many seconds there are for it,
    None for no limit; ``to`` names the agents a command or message is sent to, none for all.

    On the way in there is what the handler may ask for, too: ``request`` of a call, ``message`` of an event or file or
    to an agent, ``context`` of a command.
    """

    kind: Kind
    name: str
    args: Any = None
    headers: dict[str, Any] = attrs.field(factory=dict)
    timeout: float | None = None
    to: tuple[str, ...] = ()
    # Of types that stand above this module: lightlink.Request, Message or AgentMessage, CommandContext.
    request: Any = None
    message: Any = None
    context: Any = None


Proceed: TypeAlias = Callable[[Call], Any]
Middleware: TypeAlias = Callable[[Call, Proceed], Any]
# Is told the kind, the name, how many seconds it took, and how it failed, None for not.
Observer: TypeAlias = Callable[[Kind, str, float, "BaseException | None"], object]


class Stack:
    """The middleware of one client, outermost first, and who only wants to be told of what was done.

    ``is_used`` is what to look at where none must cost nothing.
    """

    __slots__ = ("entries", "is_used", "observers")

    def __init__(self, entries: Sequence[Middleware] = (), *, everywhere: bool = True) -> None:
        given: tuple[Middleware, ...] = functions("middleware", entries)
        self.entries = (*_everywhere, *given) if everywhere else given
        self.observers: tuple[Observer, ...] = ()
        self.is_used = bool(self.entries)

    def add(self, middleware: Middleware) -> None:
        """Have one more, as the innermost; raises InvalidOption."""
        self.entries = (*self.entries, *functions("middleware", (middleware,)))
        self.is_used = True

    def observe(self, observer: Observer) -> None:
        """Tell one more of whatever was done; raises InvalidOption."""
        self.observers = (*self.observers, *functions("observer", (observer,)))
        self.is_used = True

    def run(self, call: Call, last: Proceed) -> Any:
        """Do ``last(call)`` with all of it around, tell the observers, and return what comes out."""
        if not self.observers:
            return run(self.entries, call, last)
        started = time.monotonic()
        try:
            result = run(self.entries, call, last)
        except BaseException as exc:
            self.tell(call.kind, call.name, started, exc)
            raise
        self.tell(call.kind, call.name, started, None)
        return result

    def tell(self, kind: Kind, name: str, started: float, error: BaseException | None) -> None:
        """Tell the observers of something that began at a time of `time.monotonic` and has just ended."""
        seconds = time.monotonic() - started
        for observer in self.observers:
            try:
                observer(kind, name, seconds, error)
            except Exception:
                _log.exception("lightlink: an observer failed on %s %s", kind, name)


def run(entries: tuple[Middleware, ...], call: Call, last: Proceed) -> Any:
    """Do ``last(call)`` with middleware around, outermost first, and return what comes out."""
    proceed = last
    for each in reversed(entries):
        proceed = partial(_step, each, proceed)
    return proceed(call)


def _step(middleware: Middleware, proceed: Proceed, call: Call) -> Any:
    return middleware(call, proceed)


# What instruments a whole process, such as tracing. Clients take it along as they are made.
_everywhere: list[Middleware] = []


def install(middleware: Middleware) -> None:
    """Have every client that is made from now on use a middleware, as the outermost; once, however often called."""
    if middleware not in _everywhere:
        _everywhere.extend(functions("middleware", (middleware,)))


def uninstall(middleware: Middleware) -> None:
    """Have clients that are made from now on do without it; those that are there keep it."""
    if middleware in _everywhere:
        _everywhere.remove(middleware)
