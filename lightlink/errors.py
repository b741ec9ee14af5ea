"""Every exception LightLink raises, in one tree.

::

    LightLinkError
      ConnectError            could not connect within the limit
        AuthenticationError   the server refused this identity, or TLS failed
      ClosedError             (RuntimeError) used after close, or from the loop's own thread
      NotReady                (RuntimeError) a decorator or method used at the wrong stage of a lifecycle
      PermissionDenied        the server's permissions refuse a subject to this identity
      OutboxFull              (TimeoutError) back-pressure lasted longer than the publisher would wait
      FlushTimeout            (TimeoutError) the server did not confirm in time
      DeliveryUnknown         a connection was lost with messages that the server may not have had
      NoMessage               (TimeoutError) no message came in time
      ResourceExhausted       this process may have no more threads, open files or memory
      LinkError               NATS refused or failed an operation for another reason
      CallError
        CallTimeout           (TimeoutError) no answer in time; the call may have run
        ServiceUnavailable    nobody serves it, or not connected; the call did not run
        RemoteError           the service answered with an error
          MethodNotFound, InvalidRequest, InvalidArguments, ServiceBusy, DeadlineExceeded, HandlerError
      StateNotFound           (KeyError)
      RevisionConflict
      LockHeld                somebody else has the lock
      StateError              JetStream refused a state operation
      NotStored               a durable event that no stream has stored, or perhaps not
      StreamError             JetStream refused an operation on a stream or consumer, or it is another than was wanted
        StreamNotFound
      Reject, Later           raised by handlers of durable events: never again, or later; BatchFailed: some of a batch
      StoredFileNotFound      (FileNotFoundError)
      FileCorrupt
      TransferStalled         (TimeoutError) a file transfer made no progress
      DecodeError             bytes that are not what they should be
      EncodeError             (TypeError) a value that JSON cannot carry
      InvalidName             (ValueError) a name that NATS would refuse
      InvalidOption           (ValueError) a setting that cannot be
      PayloadTooLarge         (ValueError)
      UnsupportedSchema       a schema that a service announces and that no Python type says
      ServerError             the embedded nats-server could not be found, started or used
      FleetError              an operation of a fleet failed
        FleetRefused          the fleet said no: a token used twice, a name in use, ...
      CommandError
        CommandFailed         (CommandCancelled is one)
        CommandTimeout        (TimeoutError)
        CommandNotFound
        CommandEnded          it cannot be cancelled any more
        UndoRefused           it cannot be taken back
        AgentOffline          no agent is there, and the command was not to wait for one
        AgentInUse
        MessageTimeout        (TimeoutError) an agent did not acknowledge a message in time
        StoreUnavailable      commands could not be stored or read
      PlanInvalid             (ValueError) a plan that cannot be carried out, with every fault and its place
      RunError
        PlanNotFound          no plan is stored under this name
        RunNotFound
        RunRefused            a run is not where this can be done, or not by this one

Each carries its facts as attributes and builds its message from them, so it survives pickling and can be told
apart without reading text.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorated: decorated


_FOLDER = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - pathlib takes long to import


@dataclass_transform()
class LightLinkError(Exception):
    """The base of every error raised by LightLink.

    What a class annotates are its facts: the arguments of its constructor, and its attributes. They are found here and
    not by attrs, which would make a constructor of its own for each class: a tenth of the time of the first connection.
    """

    _facts: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls).get("__annotations__", ())
        cls._facts = (*cls._facts, *(name for name in own if name not in cls._facts))

    def __init__(self, *args: Any, **named: Any) -> None:
        if not self._facts and not named:
            super().__init__(*args)
            return
        facts = self._bind(args, named)
        # What pickling gives to the constructor again.
        BaseException.__init__(self, *facts.values())
        for name, value in facts.items():
            setattr(self, name, value)

    def _bind(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        cls = type(self)
        names = self._facts
        given = dict(zip(names, args, strict=False)) | named
        wrong = [name for name in named if name not in names or names.index(name) < len(args)]
        missing = [name for name in names if name not in given and not hasattr(cls, name)]
        if wrong or missing or len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes {', '.join(names) or 'no facts'}; not {args!r}, {named!r}")
        return {name: given[name] if name in given else getattr(cls, name) for name in names}

    def __repr__(self) -> str:
        if not self._facts:
            return super().__repr__()
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._facts)})"

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: where it came out of the user's own code, and not the way through this library."""
        frames = traceback.extract_tb(self.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_FOLDER)]
        return [*traceback.format_list(own), *traceback.format_exception_only(type(self), self)]


# Connection ---------------------------------------------------------------------------------------------------------


class ConnectError(LightLinkError):
    """No server could be reached within the limit.

    ``tried`` holds one (server, reason) pair for each attempt, ``timeout`` the limit in seconds.
    """

    tried: Sequence[tuple[str, str]]
    timeout: float

    def __str__(self) -> str:
        attempts = "; ".join(f"{server}: {reason}" for server, reason in self.tried) or "no server was tried"
        return f"could not connect to NATS within {self.timeout:g} s ({attempts})"

    @property
    def servers(self) -> list[str]:
        """The servers tried, in order."""
        return [server for server, _ in self.tried]


class AuthenticationError(ConnectError):
    """The server refused this identity, TLS failed, or our certificate or key is not fit."""

    def __str__(self) -> str:
        attempts = "; ".join(f"{server}: {reason}" for server, reason in self.tried)
        return f"could not authenticate with NATS ({attempts})"


class ClosedError(LightLinkError, RuntimeError):
    """The object was used after close, or a blocking method was called from the loop's own thread."""

    what: str
    reason: str = "is closed"

    def __str__(self) -> str:
        return f"{self.what} {self.reason}"


class ResourceExhausted(LightLinkError):
    """This process may have no more threads, open files or memory; ``reason`` is what the system said."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason} (see the limits of this process: ulimit -a)"


class NotReady(LightLinkError, RuntimeError):
    """Something was asked for at a stage of a lifecycle at which it cannot be done."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} {self.reason}"


class PermissionDenied(LightLinkError):
    """The server's permissions refuse this identity a subject; ``operation`` is publish or subscribe.

    ``identity`` is its name, and ``grant`` what `lightlink certs issue` would allow it by, where these are known.
    """

    operation: str
    subject: str
    identity: str = ""
    grant: str = ""

    def __str__(self) -> str:
        who = f"{self.identity!r}" if self.identity else "this identity"
        how = f" (lightlink certs issue {self.grant})" if self.grant else ""
        return f"permission denied: {who} may not {self.operation} to {self.subject!r}{how}"


class OutboxFull(LightLinkError, TimeoutError):
    """Messages were published faster than the server takes them, for longer than the publisher would wait."""

    messages: int
    size: int
    timeout: float

    def __str__(self) -> str:
        return (
            f"the outbox is full ({self.messages} messages, {self.size} bytes wait for the server) "
            f"and did not drain within {self.timeout:g} s; the message was not published"
        )


class FlushTimeout(LightLinkError, TimeoutError):
    """The server did not confirm within ``timeout`` seconds that it has everything published so far."""

    timeout: float
    status: str

    def __str__(self) -> str:
        return f"flush was not confirmed within {self.timeout:g} s (connection is {self.status})"


class DeliveryUnknown(LightLinkError):
    """The connection was lost with messages on it that no flush had confirmed: the server may not have had them.

    It is raised once, by the next flush; what was published after the loss has arrived.
    """

    messages: int

    def __str__(self) -> str:
        return (
            f"the connection was lost meanwhile; {self.messages} messages that had left and that no flush had "
            "confirmed may not have arrived"
        )


class NoMessage(LightLinkError, TimeoutError):
    """No message came on a subscription within ``timeout`` seconds."""

    subject: str
    timeout: float

    def __str__(self) -> str:
        return f"no message on {self.subject!r} within {self.timeout:g} s"


class LinkError(LightLinkError):
    """NATS refused or failed an operation; ``reason`` is what it said."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason}"


# Calls --------------------------------------------------------------------------------------------------------------


class CallError(LightLinkError):
    """A call did not bring back a result."""


class CallTimeout(CallError, TimeoutError):
    """No answer came in time. The call may have run."""

    service: str
    method: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.service}.{self.method} did not answer within {self.timeout:g} s; it may have run"


class ServiceUnavailable(CallError):
    """Nobody serves the service, or there was no connection. The call did not run."""

    service: str
    method: str
    reason: str = "nobody serves it (no responders)"

    def __str__(self) -> str:
        return f"{self.service}.{self.method} is unavailable: {self.reason}"


class RemoteError(CallError):
    """The service answered with an error: ``code`` tells which, ``message`` is the service's own text."""

    service: str
    method: str
    code: str
    message: str

    def __str__(self) -> str:
        # The text a service sends names the method for whoever sees nothing else; once is enough here.
        return f"{self.service}.{self.method}: {self.message.removeprefix(f'{self.method}: ')}"


class MethodNotFound(RemoteError):
    """The service has no such method."""


class InvalidRequest(RemoteError):
    """The service could not read the request."""


class InvalidArguments(RemoteError):
    """An argument is missing, unknown or of the wrong type; the message names it."""


class ServiceBusy(RemoteError):
    """The service holds as many requests as it may. The call did not run."""


class DeadlineExceeded(RemoteError):
    """The request waited in the service's queue past the caller's deadline. The call did not run."""


class HandlerError(RemoteError):
    """The handler raised; the message is its exception's type and text."""


# State and files ----------------------------------------------------------------------------------------------------


class StateNotFound(LightLinkError, KeyError):
    """The bucket holds no value for the key."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"no value for key {self.key!r} in bucket {self.bucket!r}"


class RevisionConflict(LightLinkError):
    """Somebody else wrote the key first; ``expected`` is the revision the write was based on (0: none)."""

    bucket: str
    key: str
    expected: int

    def __str__(self) -> str:
        basis = f"revision {self.expected} is not its last" if self.expected else "it exists already"
        return f"key {self.key!r} in bucket {self.bucket!r} was not written: {basis}"


class LockHeld(LightLinkError):
    """Somebody else has the lock; ``holder`` says who: ``owner``, ``host``, ``pid``."""

    name: str
    holder: dict[str, Any]

    def __str__(self) -> str:
        who = ", ".join(f"{name} {value}" for name, value in self.holder.items())
        return f"lock {self.name!r} is held" + (f" ({who})" if who else "")


class StateError(LightLinkError):
    """A state operation failed; ``unknown`` says that a write may or may not have been stored."""

    bucket: str
    operation: str
    reason: str
    unknown: bool = False

    def __str__(self) -> str:
        outcome = "; the outcome is unknown" if self.unknown else ""
        return f"{self.operation} in bucket {self.bucket!r} failed: {self.reason}{outcome}"


class NotStored(LightLinkError):
    """An event was not stored; ``unknown`` says that it may be all the same, since no answer came."""

    subject: str
    reason: str
    unknown: bool = False

    def __str__(self) -> str:
        doubt = "; it may be all the same" if self.unknown else ""
        return f"{self.subject!r} was not stored: {self.reason}{doubt}"


class StreamError(LightLinkError):
    """An operation on a stream, or on a consumer of it, failed; ``reason`` says why."""

    name: str
    operation: str
    reason: str

    def __str__(self) -> str:
        return f"cannot {self.operation} {self.name!r}: {self.reason}"


class StreamNotFound(StreamError):
    """There is no such stream, or no such consumer."""

    name: str
    operation: str = "find"
    reason: str = "there is none"


class Reject(LightLinkError):
    """Raised by the handler of a durable event that can never be handled: it becomes a dead letter at once."""


class Later(LightLinkError):
    """Raised by the handler of a durable event that cannot be handled yet; no failure. ``delay`` in seconds."""

    delay: float

    def __str__(self) -> str:
        return f"again in {self.delay:g} s"


class BatchFailed(LightLinkError):
    """Raised by the handler of a batch of which some have failed; ``errors`` by their place in the batch."""

    errors: Mapping[int, Exception]

    def __str__(self) -> str:
        return f"{len(self.errors)} of a batch failed: {next(iter(self.errors.values()), '')}"


class StoredFileNotFound(LightLinkError, FileNotFoundError):
    """The file store holds no such file."""

    bucket: str
    file_id: str

    def __str__(self) -> str:
        return f"no file {self.file_id!r} in file store {self.bucket!r}"


class FileCorrupt(LightLinkError):
    """What was read is not what was stored."""

    file_id: str
    reason: str

    def __str__(self) -> str:
        return f"file {self.file_id!r} is corrupt: {self.reason}"


class TransferStalled(LightLinkError, TimeoutError):
    """A transfer made no progress for ``stall_timeout`` seconds."""

    file_id: str
    done: int
    total: int | None
    stall_timeout: float

    def __str__(self) -> str:
        total = "" if self.total is None else f" of {self.total}"
        return f"transfer of {self.file_id!r} stalled for {self.stall_timeout:g} s after {self.done}{total} bytes"


# Values and names ---------------------------------------------------------------------------------------------------


class DecodeError(LightLinkError):
    """Bytes that are not what they should be; ``start`` holds the first of them."""

    subject: str
    reason: str
    start: bytes = b""

    def __str__(self) -> str:
        return f"cannot decode the message on {self.subject!r}: {self.reason} (starts with {self.start[:40]!r})"


class EncodeError(LightLinkError, TypeError):
    """A value that JSON cannot carry."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"cannot encode {self.what} as JSON: {self.reason}"


class InvalidName(LightLinkError, ValueError):
    """A subject, key, service or client id that NATS would refuse; ``kind`` says which of them."""

    kind: str
    name: Any
    reason: str

    def __str__(self) -> str:
        return f"invalid {self.kind} {self.name!r}: {self.reason}"


class InvalidOption(LightLinkError, ValueError):
    """A setting that cannot be; ``value`` is left out for secrets."""

    option: str
    reason: str
    value: Any = None

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value!r}"
        return f"invalid {self.option}{value}: {self.reason}"


class UnsupportedSchema(LightLinkError):
    """A schema that a service announces and that no Python type says; ``where`` is the part of it."""

    service: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.service}.{self.where}: {self.reason}"


class PayloadTooLarge(LightLinkError, ValueError):
    """A payload over the server's limit; both in bytes."""

    subject: str
    size: int
    limit: int

    def __str__(self) -> str:
        return f"the payload for {self.subject!r} has {self.size} bytes; the server takes at most {self.limit}"


class ServerError(LightLinkError):
    """The embedded nats-server could not be found, started or used."""

    reason: str

    def __str__(self) -> str:
        return self.reason


# Fleet --------------------------------------------------------------------------------------------------------------


class FleetError(LightLinkError):
    """An operation of a fleet that failed; ``reason`` says why."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}"


class FleetRefused(FleetError):
    """A fleet said no, and will again; ``code`` tells the reasons apart: ``used``, ``expired``, ``other_name``, ..."""

    code: str


# Commands -----------------------------------------------------------------------------------------------------------


class CommandError(LightLinkError):
    """A command did not bring back a result."""


class CommandFailed(CommandError):
    """The command ended as failed; ``command`` is its last state."""

    command: Any

    def __str__(self) -> str:
        command = self.command
        detail = f" ({command.status_detail})" if command.status_detail else ""
        name = f"command {command.command_id} ({command.command_type} on {command.client_id})"
        return f"{name} failed{detail}: {command.error}"


class CommandCancelled(CommandFailed):
    """The command was cancelled."""


class CommandTimeout(CommandError, TimeoutError):
    """The command ended as timeout, or was not over when the caller stopped waiting; ``command`` is its last state."""

    command: Any
    waited: float | None = None

    def __str__(self) -> str:
        command = self.command
        name = f"command {command.command_id} ({command.command_type} on {command.client_id})"
        if self.waited is not None:
            return f"{name} is still {command.status} after {self.waited:g} s"
        return f"{name} timed out ({command.status_detail})"


class CommandNotFound(CommandError):
    """No command has this id."""

    command_id: str

    def __str__(self) -> str:
        return f"Command not found: {self.command_id}"


class CommandEnded(CommandError):
    """The command has ended already, so it cannot be cancelled; ``command`` is its last state."""

    command: Any

    def __str__(self) -> str:
        return f"command {self.command.command_id} has ended already: {self.command.status}"


class UndoRefused(CommandError):
    """A command cannot be taken back; ``reason`` says why."""

    command_id: str
    reason: str

    def __str__(self) -> str:
        return f"command {self.command_id} cannot be taken back: {self.reason}"


class AgentOffline(CommandError):
    """No live agent holds this client id, and the command was not to wait for one."""

    client_id: str

    def __str__(self) -> str:
        return f"client not connected: {self.client_id}"


class AgentInUse(CommandError):
    """A live agent already holds this client id."""

    client_id: str
    instance: str

    def __str__(self) -> str:
        return f"client id {self.client_id!r} is in use by a live agent (instance {self.instance})"


class MessageTimeout(CommandError, TimeoutError):
    """An agent did not acknowledge a message within ``timeout`` seconds. It may have got it."""

    client_id: str
    msg_id: str
    timeout: float

    def __str__(self) -> str:
        return (
            f"{self.client_id} did not acknowledge message {self.msg_id} within {self.timeout:g} s; it may have got it"
        )


class StoreUnavailable(CommandError):
    """Commands could not be stored or read; ``unknown`` says that a write may or may not have been stored."""

    operation: str
    reason: str
    unknown: bool = False

    def __str__(self) -> str:
        outcome = "; the outcome is unknown" if self.unknown else ""
        return f"{self.operation} failed: {self.reason}{outcome}"


# Runs ---------------------------------------------------------------------------------------------------------------


class PlanInvalid(LightLinkError, ValueError):
    """A plan cannot be carried out; ``faults`` holds (place, reason) for each thing that is wrong with it."""

    source: str
    faults: list[tuple[str, str]]

    def __str__(self) -> str:
        return f"{self.source} is refused: " + "; ".join(f"{place}: {reason}" for place, reason in self.faults)


class RunError(LightLinkError):
    """Something about the run of a plan."""


class PlanNotFound(RunError):
    """No plan is stored under this name."""

    name: str

    def __str__(self) -> str:
        return f"no plan is stored as {self.name!r}"


class RunNotFound(RunError):
    """No run has this id, or it is no longer kept."""

    run_id: str

    def __str__(self) -> str:
        return f"there is no run {self.run_id!r}, or it is no longer kept"


class RunRefused(RunError):
    """A run is not where something can be done to it, or not by whoever asked; ``reason`` says why."""

    run_id: str
    operation: str
    reason: str

    def __str__(self) -> str:
        return f"cannot {self.operation} run {self.run_id}: {self.reason}"
