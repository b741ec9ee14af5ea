"""An agent: runs the commands sent to one client id, whenever it is there."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, TypeVar, overload

from lightlink.client import Client
from lightlink.commands.agent.handlers import CommandExecutor, ContextExecutor, Handlers
from lightlink.commands.agent.ports import AgentLink
from lightlink.commands.agent.runner import Runner
from lightlink.commands.messages import MessageHandlers
from lightlink.commands.store import schema
from lightlink.commands.store.schema import StoreOptions
from lightlink.concurrency import forks
from lightlink.concurrency.lifecycle import Stage
from lightlink.concurrency.threads import Condition, Event, wait_in_parts, wait_until
from lightlink.connected import Connected
from lightlink.errors import ClosedError, InvalidOption, LightLinkError, NotReady
from lightlink.protocol import html
from lightlink.protocol.ids import new_token
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.middleware import Middleware

Function = TypeVar("Function", bound="Callable[..., Any]")

_log = logging.getLogger("lightlink")

_MAX_WORKERS = 1024
# The server lets a consumer have 4,096 commands under way.
_MAX_PREFETCH = 1024


class Agent(Connected):
    """Runs the commands sent to ``client_id``, on ``workers`` threads, higher priorities first.

    ``target`` is a `Client`, whose connection is then shared, or a URL as for `connect`, with its ``options``.
    ``executor`` is asked for commands that no function is registered for. ``labels`` let managers address many
    agents at once. ``prefetch`` commands are fetched ahead: among them, the higher priority goes first. ``store`` tells
    how the streams are made if this agent comes first. ``middleware`` are functions around its handlers, outermost
    first, and with a URL around all that its client does; that of a client which is given goes before it.
    `CommandManager.describe` tells of each type of command its docstring and schemas; not with ``describe=False``. It
    belongs to the process that started it.
    """

    def __init__(
        self,
        client_id: str,
        target: Client | str | Sequence[str] | None = None,
        *,
        executor: CommandExecutor | ContextExecutor | None = None,
        workers: int = 4,
        labels: Mapping[str, str] | None = None,
        prefetch: int = 256,
        store: StoreOptions | None = None,
        middleware: Sequence[Middleware] = (),
        describe: bool = True,
        **options: Any,
    ) -> None:
        self.client_id = schema.client_id(client_id)
        self.instance = new_token()
        self.labels = schema.labels(labels)
        own_options = ("executor", "workers", "labels", "prefetch", "store")
        super().__init__(f"agent {client_id!r}", client_id, target, options, own_options, middleware)
        for option, value, most in (("workers", workers, _MAX_WORKERS), ("prefetch", prefetch, _MAX_PREFETCH)):
            integer(option, value, 1, most)
        self._describes = describe
        self._store_options = store or StoreOptions()
        self._workers = workers
        self._prefetch = prefetch
        self._handlers = Handlers(executor)
        self._messages = MessageHandlers()
        self._runner: Runner | None = None
        self._changed = Condition()
        self._leaving = Event()
        self._is_cut_short = False  # a stop was, by Ctrl-C or a second signal: the next finishes it, and waits no more

    # Registering ----------------------------------------------------------------------------------------------------

    def command(
        self, command_type: str, *, idempotent: bool = False, undo: str = "", resource: str = ""
    ) -> Callable[[Function], Function]:
        """Register the decorated function for a type of command, and return it unchanged.

        The payload is bound to its parameters by name and checked against the annotations; a parameter annotated with
        `CommandContext` gets the context. An ``idempotent`` command is run again when an agent died while running it;
        another one then ends as failed / interrupted. One that can be taken back names the command that does it in
        ``undo``, and returns `Undoable` with the payload for that; ``resource`` names what it changes, so that of two
        the later is taken back first.
        """
        if callable(command_type):
            raise InvalidOption("command", "name the type: @agent.command('restart')")

        def decorate(function: Function) -> Function:
            self.register(command_type, function, idempotent=idempotent, undo=undo, resource=resource)
            return function

        return decorate

    def register(
        self,
        command_type: str,
        function: Callable[..., Any],
        *,
        idempotent: bool = False,
        undo: str = "",
        resource: str = "",
    ) -> None:
        """Register a function for a type of command, as `command` does; raises NotReady after the start."""
        self._refuse_after_start(f"command {command_type!r}")
        self._handlers.add(command_type, function, idempotent, undo, resource)

    @overload
    def on_message(self, message_type: Function) -> Function: ...
    @overload
    def on_message(self, message_type: str | None = None) -> Callable[[Function], Function]: ...
    def on_message(self, message_type: Any = None) -> Any:
        """Register the decorated function for messages: ``@agent.on_message`` or ``@agent.on_message("notice")``.

        It is given an `AgentMessage`. Messages are not stored; they are handled in order, one at a time, beside the
        commands. The function is returned unchanged.
        """
        if callable(message_type):
            return self.on_message()(message_type)
        if message_type is not None and (not isinstance(message_type, str) or not message_type):
            raise InvalidOption("message type", "must be text", message_type)

        def decorate(function: Function) -> Function:
            self._refuse_after_start("on_message")
            self._messages.add(message_type, function)
            return function

        return decorate

    # Lifetime -------------------------------------------------------------------------------------------------------

    def start(self, timeout: float | None = 30.0) -> Agent:
        """Connect, claim the client id and begin to take commands; returns self.

        A dead agent's claim is waited out, up to three heartbeats. What cannot be claimed at all, because no manager
        has made the streams yet and this identity may not, or because a cluster elects who leads, is waited for
        ``timeout`` seconds (None: until it can, or `stop`). Raises AgentInUse when a live agent holds the id,
        StoreUnavailable, and the errors of `connect`.
        """
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        self._handlers.check_undos()
        if self._is_in_parent:
            self._begin_anew()
        with self._changed:
            if self._stage in (Stage.STARTING, Stage.RUNNING):
                raise NotReady(f"agent {self.client_id!r}", "is running already")
            if self._stage is not Stage.NEW:
                raise ClosedError(f"agent {self.client_id!r}")
            self._stage = Stage.STARTING
            self._pid = os.getpid()
        try:
            self._begin(timeout)
        except BaseException:
            self._end(1.0)
            raise
        with self._changed:
            self._stage = Stage.RUNNING
        if self._leaving.is_set():
            self.stop()
            raise ClosedError(f"agent {self.client_id!r}", "was stopped while it started")
        _log.info("lightlink: agent %s is running (instance %s)", self.client_id, self.instance)
        return self

    def _begin_anew(self) -> None:
        """Forget, in a forked child, what belongs to the parent: threads, locks and the claim to the client id."""
        super()._begin_anew()
        self.instance = new_token()
        self._runner = None
        self._changed, self._leaving = Condition(), Event()
        self._is_cut_short = False

    def stop(self, timeout: float = 10.0) -> None:
        """Take no more commands, hand back what was not begun, finish what runs within ``timeout`` seconds, and leave.

        A handler that does not end in time is told through `CommandContext.cancelled`; its command ends as interrupted
        or, if it is idempotent, is run again by the next agent. Called by a handler itself, it returns at once, and the
        agent stops once the handler is done. Idempotent.
        """
        timeout = 0.0 if self._is_cut_short else seconds("timeout", timeout)
        if self._is_in_parent:
            return  # it is the parent's
        if self._runner is not None:
            self.client.connection.session.loop.refuse_own_thread()
        self._stop_signal.set()
        self._leaving.set()
        if self._runner is None and self._client is not None and self._has_own_client:
            self._client.close(0)  # it may wait for a server
        with self._changed:
            if self._stage in (Stage.STARTING, Stage.STOPPING) and not self._is_own_worker:
                # Another thread is at it.
                wait_until(self._changed, lambda: self._stage is Stage.STOPPED, timeout + 2)
            if self._stage not in (Stage.NEW, Stage.RUNNING):
                return
            self._stage = Stage.STOPPING
        if self._runner is not None and self._is_own_worker:
            self._runner.steward.put(self._end, timeout)
        else:
            self._end(timeout)

    def leave_at_exit(self, timeout: float) -> None:
        """Give the client id back as the interpreter ends without a `stop`. For use inside the library."""
        if self._stage is Stage.RUNNING and self._pid == os.getpid() and self._runner is not None:
            self._runner.leave_at_exit(timeout)

    def __repr__(self) -> str:
        return f"<Agent {self.client_id!r} {self._shown_stage}>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        told = {"stage": self._stage.value, "instance": self.instance, "labels": self.labels or None}
        return html.facts(f"Agent {self.client_id}", told)

    # ----------------------------------------------------------------------------------------------------------------

    def _start_patiently(self) -> Agent:
        return self.start(timeout=None)

    def _is_leaving_after(self, pause: float) -> bool:
        """Wait a little and tell whether the agent is to leave before it has come."""
        return wait_in_parts(self._leaving.wait, pause) or self._stop_signal.is_set

    def _begin(self, timeout: float | None) -> None:
        client = self._prepare()
        # A client of our own has our middleware already.
        own = self._middleware if client is self._target else ()
        self._handlers.middleware = client.connection.middleware.entries + own
        self._messages.middleware = self._handlers.middleware
        link = AgentLink(client, self.client_id, self.instance, self._store_options)
        link.open()
        self._runner = Runner(
            link,
            self.labels,
            self._handlers,
            self._messages,
            self._workers,
            self._prefetch,
            self._describes,
            self._on_lost,
        )
        self._runner.start(self._is_leaving_after, timeout)
        self.client.connection.add_receiver(self)
        forks.leave_at_exit(self)

    def _end(self, timeout: float) -> None:
        try:
            if self._runner is not None:
                self._runner.stop(timeout)
            if self._client is not None and self._has_own_client:
                self._client.close(max(min(timeout, 5.0), 0.5))
        except BaseException as exc:
            if self._stage is Stage.STOPPING:
                self._stage, self._is_cut_short = Stage.RUNNING, not isinstance(exc, LightLinkError)
            raise
        finally:
            with self._changed:
                was = self._stage
                if was is not Stage.RUNNING:
                    self._stage = Stage.STOPPED
                self._changed.notify_all()
        if was is Stage.STOPPING:
            _log.info("lightlink: agent %s has stopped", self.client_id)

    def _on_lost(self, error: LightLinkError) -> None:
        """Stop, because there is no going on; called on a thread that takes part in the stop."""
        assert self._runner is not None
        if self._lost is None and self._stage is Stage.RUNNING:
            self._lost = error
            self.client.connection.report(error)
            self._runner.steward.put(self.stop)

    @property
    def _is_own_worker(self) -> bool:
        return self._runner is not None and self._runner.pool.is_own_thread
