"""What an agent can run: functions by type of command, and an executor for the rest."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs
import msgspec

from lightlink import logs
from lightlink.binding import Binder, BindError
from lightlink.commands import model
from lightlink.commands.agent.context import Cancelled, CommandContext
from lightlink.commands.model import UndoTold
from lightlink.commands.store import checks
from lightlink.concurrency.forks import run_handler
from lightlink.describe import describe
from lightlink.errors import EncodeError, InvalidOption, LightLinkError
from lightlink.middleware import Call, run
from lightlink.protocol import codec
from lightlink.protocol.text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.model import RequestRecord, StatusName
    from lightlink.middleware import Middleware

_log = logging.getLogger("lightlink")

ANY_TYPE = "*"  # what an agent announces whose executor takes types that it cannot name
CANCELLED_TEXT = "cancelled"
_MAX_ERROR_TEXT = 4096


@runtime_checkable
class CommandExecutor(Protocol):
    """Runs commands of any type. ``execute`` may have a third parameter, ``context``, for the `CommandContext`."""

    def execute(self, command_type: str, payload: Any) -> Any:
        """Run a command and return its result; raise UnknownCommand, or Rejected for a payload it does not take."""


class ContextExecutor(Protocol):
    """A `CommandExecutor` that asks for the context."""

    def execute(self, command_type: str, payload: Any, context: CommandContext) -> Any:
        """Run a command and return its result."""


class Rejected(LightLinkError):
    """Raised by a handler or executor for a command that it will not run: it ends as failed / rejected."""


class UnknownCommand(Rejected):
    """Raised by an executor for a command type it does not know."""


@attrs.frozen
class Undoable:
    """Returned by a handler: its ``result``, and the payload for the command that takes it back (``undo=``)."""

    result: Any
    undo: Any


@attrs.frozen(kw_only=True)
class Outcome:
    """How a handler ended, in the words of a status. ``result`` is JSON already."""

    status: StatusName
    status_detail: str = ""
    result: msgspec.Raw | None = None
    error: str = ""
    outcome_unknown: bool = False
    undo: UndoTold | None = None


@attrs.frozen
class Handler:
    """A registered function; ``idempotent`` says that running it twice does no harm, ``undo`` what takes it back."""

    binder: Binder
    idempotent: bool
    undo: str = ""
    resource: str = ""


@attrs.frozen
class Job:
    """What a command runs: a function with its arguments, bound and checked, or the executor (no ``handler``)."""

    handler: Handler | None
    arguments: Any = None


class Handlers:
    """Looks up and runs the handlers of one agent."""

    def __init__(self, executor: CommandExecutor | ContextExecutor | None) -> None:
        self.middleware: tuple[Middleware, ...] = ()
        self._functions: dict[str, Handler] = {}
        self._executor = executor
        self._executor_takes_context = executor is not None and _takes_context(executor)

    def add(
        self, command_type: str, function: Callable[..., Any], idempotent: bool, undo: str = "", resource: str = ""
    ) -> None:
        """Register a function; raises InvalidOption."""
        checks.text("command type", command_type)
        checks.text("undo", undo, may_be_empty=True)
        checks.text("resource", resource, may_be_empty=True)
        if resource and not undo:
            raise InvalidOption("resource", "is for a command that names its undo", resource)
        if command_type in self._functions:
            raise InvalidOption("command type", "is registered already", command_type)
        binder = Binder(function, {CommandContext: "context"})
        self._functions[command_type] = Handler(binder, idempotent, undo, resource)

    def check_undos(self) -> None:
        """Raise InvalidOption for an undo that nothing here runs."""
        if self._executor is not None:
            return
        for command_type, handler in self._functions.items():
            if handler.undo and handler.undo not in self._functions:
                raise InvalidOption("undo", f"of {command_type!r} is no command of this agent", handler.undo)

    def describe(self) -> dict[str, dict[str, str]]:
        """Return what is told of each type of command that a function is registered for, as metadata."""
        return {name: describe(handler.binder, (Undoable,)).metadata() for name, handler in self._functions.items()}

    @property
    def command_types(self) -> list[str]:
        """The types of commands that functions are registered for, sorted."""
        return sorted(self._functions)

    @property
    def announced_types(self) -> list[str]:
        """The same, and ``*`` where an executor takes other types too."""
        return self.command_types if self._executor is None else [ANY_TYPE, *self.command_types]

    def is_idempotent(self, command_type: str) -> bool:
        """Tell whether a command may be run again after its agent died while running it."""
        handler = self._functions.get(command_type)
        return handler is not None and handler.idempotent

    def bind(self, request: RequestRecord) -> Job:
        """Return what a command runs; raises Rejected when it cannot be run at all."""
        handler = self._functions.get(request.command_type)
        if handler is None:
            if self._executor is None:
                raise Rejected(f"unknown command type {request.command_type!r}")
            return Job(None)
        payload = bytes(request.payload)
        try:
            return Job(handler, handler.binder.bind(b"{}" if payload == b"null" else payload))
        except BindError as exc:
            raise Rejected(_error_text(f"{request.command_type}: {exc}")) from None

    def run(self, request: RequestRecord, job: Job, context: CommandContext) -> Outcome:
        """Run a command and return how that ended; raises nothing."""
        try:
            return self._completed(request, job, self._call(request, job, context))
        except Cancelled:
            return Outcome(status=model.FAILED, status_detail=model.CANCELLED, error=CANCELLED_TEXT)
        except Rejected as exc:
            return Outcome(status=model.FAILED, status_detail=model.REJECTED, error=_error_text(exc))
        except EncodeError as exc:
            return self.failed(_error_text(exc))
        except BaseException as exc:
            # A handler may even call sys.exit().
            _log.exception(
                "lightlink: command %s (%r) failed (sent by %s, correlation id %s)",
                request.command_id,
                request.command_type,
                request.issued_by or "unknown",
                logs.correlation_id(),
            )
            detail = model.CANCELLED if context.cancelled.is_set() else ""
            error = f"{type(exc).__name__}: {_error_text(exc)}".removesuffix(": ")
            return Outcome(status=model.FAILED, status_detail=detail, error=error)

    def _completed(self, request: RequestRecord, job: Job, result: Any) -> Outcome:
        undo = None
        if isinstance(result, Undoable):
            handler = job.handler
            if handler is None or not handler.undo:
                return self.failed(f"it ran, and returned Undoable, but {request.command_type!r} names no undo")
            codec.encode_json(result.undo, "what takes it back")
            undo = UndoTold(handler.undo, result.undo, handler.resource)
            result = result.result
        encoded = msgspec.Raw(codec.encode_json(result, "the result"))
        return Outcome(status=model.COMPLETED, result=encoded, undo=undo)

    def failed(self, error: str) -> Outcome:
        """Return the outcome of a command that failed."""
        return Outcome(status=model.FAILED, error=error)

    def interrupted(self) -> Outcome:
        """Return the outcome of a command whose handler ended because the agent was to leave."""
        error = "the agent stopped while running it"
        return Outcome(status=model.FAILED, status_detail=model.INTERRUPTED, error=error, outcome_unknown=True)

    def _call(self, request: RequestRecord, job: Job, context: CommandContext) -> Any:
        handler, arguments = job.handler, job.arguments
        if handler is None:
            arguments = codec.decode(bytes(request.payload), request.command_id)

        def last(call: Call) -> Any:
            if handler is not None:
                return handler.binder.call(call.args, {"context": context})
            return self._execute(request.command_type, call.args, context)

        call = Call(
            kind="command",
            name=request.command_type,
            args=arguments,
            headers=context.headers,
            timeout=context.remaining(),
            context=context,
        )
        return run_handler(run, self.middleware, call, last)

    def _execute(self, command_type: str, payload: Any, context: CommandContext) -> Any:
        assert self._executor is not None
        wanted = {"context": context} if self._executor_takes_context else {}
        return self._executor.execute(command_type, payload, **wanted)


def _takes_context(executor: CommandExecutor | ContextExecutor) -> bool:
    """Tell whether an executor wants the context, too; raises InvalidOption for what is no executor."""
    name = getattr(executor, "__name__", type(executor).__name__)
    if inspect.isclass(executor):
        raise InvalidOption("executor", "is a class; give an object of it", name)
    if not callable(getattr(executor, "execute", None)):
        raise InvalidOption("executor", "has no method execute(command_type, payload)", name)
    if inspect.iscoroutinefunction(executor.execute):
        raise InvalidOption("executor", "its method execute is a coroutine function; it must be a plain one", name)
    try:
        signature = inspect.signature(executor.execute)
    except (TypeError, ValueError):
        return False  # one that does not tell, as some written in C
    takes = "context" in signature.parameters
    try:
        signature.bind("", None, **({"context": None} if takes else {}))
    except TypeError:
        raise InvalidOption("executor", "its method execute must take (command_type, payload)", name) from None
    return takes


def _error_text(error: object) -> str:
    return text_of(error)[:_MAX_ERROR_TEXT]
