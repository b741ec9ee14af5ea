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

from lightlink.errors.base import (
    LightLinkError,
)
from lightlink.errors.calls import (
    CallError,
    CallTimeout,
    DeadlineExceeded,
    HandlerError,
    InvalidArguments,
    InvalidRequest,
    MethodNotFound,
    RemoteError,
    ServiceBusy,
    ServiceUnavailable,
)
from lightlink.errors.commands import (
    AgentInUse,
    AgentOffline,
    CommandCancelled,
    CommandEnded,
    CommandError,
    CommandFailed,
    CommandNotFound,
    CommandTimeout,
    FleetError,
    FleetRefused,
    MessageTimeout,
    StoreUnavailable,
    UndoRefused,
)
from lightlink.errors.connection import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    DeliveryUnknown,
    FlushTimeout,
    LinkError,
    NoMessage,
    NotReady,
    OutboxFull,
    PermissionDenied,
    ResourceExhausted,
    ServerError,
)
from lightlink.errors.runs import (
    PlanInvalid,
    PlanNotFound,
    RunError,
    RunNotFound,
    RunRefused,
)
from lightlink.errors.state import (
    FileCorrupt,
    LockHeld,
    RevisionConflict,
    StateError,
    StateNotFound,
    StoredFileNotFound,
    TransferStalled,
)
from lightlink.errors.streams import (
    BatchFailed,
    Later,
    NotStored,
    Reject,
    StreamError,
    StreamNotFound,
)
from lightlink.errors.values import (
    DecodeError,
    EncodeError,
    InvalidName,
    InvalidOption,
    PayloadTooLarge,
    UnsupportedSchema,
)

__all__ = [
    "AgentInUse",
    "AgentOffline",
    "AuthenticationError",
    "BatchFailed",
    "CallError",
    "CallTimeout",
    "ClosedError",
    "CommandCancelled",
    "CommandEnded",
    "CommandError",
    "CommandFailed",
    "CommandNotFound",
    "CommandTimeout",
    "ConnectError",
    "DeadlineExceeded",
    "DecodeError",
    "DeliveryUnknown",
    "EncodeError",
    "FileCorrupt",
    "FleetError",
    "FleetRefused",
    "FlushTimeout",
    "HandlerError",
    "InvalidArguments",
    "InvalidName",
    "InvalidOption",
    "InvalidRequest",
    "Later",
    "LightLinkError",
    "LinkError",
    "LockHeld",
    "MessageTimeout",
    "MethodNotFound",
    "NoMessage",
    "NotReady",
    "NotStored",
    "OutboxFull",
    "PayloadTooLarge",
    "PermissionDenied",
    "PlanInvalid",
    "PlanNotFound",
    "Reject",
    "RemoteError",
    "ResourceExhausted",
    "RevisionConflict",
    "RunError",
    "RunNotFound",
    "RunRefused",
    "ServerError",
    "ServiceBusy",
    "ServiceUnavailable",
    "StateError",
    "StateNotFound",
    "StoreUnavailable",
    "StoredFileNotFound",
    "StreamError",
    "StreamNotFound",
    "TransferStalled",
    "UndoRefused",
    "UnsupportedSchema",
]
