"""LightLink: plain blocking Python talks to other services over NATS."""

from typing import TYPE_CHECKING, Any

from lightlink.client import Client, connect
from lightlink.errors import (
    AgentInUse,
    AgentOffline,
    AuthenticationError,
    CallError,
    CallTimeout,
    ClosedError,
    CommandCancelled,
    CommandEnded,
    CommandError,
    CommandFailed,
    CommandNotFound,
    CommandTimeout,
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    EncodeError,
    FileCorrupt,
    FlushTimeout,
    HandlerError,
    InvalidArguments,
    InvalidName,
    InvalidOption,
    InvalidRequest,
    LightLinkError,
    LinkError,
    MessageTimeout,
    MethodNotFound,
    NoMessage,
    NotReady,
    OutboxFull,
    PayloadTooLarge,
    PermissionDenied,
    RemoteError,
    RevisionConflict,
    ServerError,
    ServiceBusy,
    ServiceUnavailable,
    StateError,
    StateNotFound,
    StoredFileNotFound,
    StoreUnavailable,
    TransferStalled,
)
from lightlink.files import FileInfo, FileStore
from lightlink.message import Message
from lightlink.options import TLS, ConnectOptions
from lightlink.request import Request
from lightlink.retry import Retry
from lightlink.rpc import ServiceProxy
from lightlink.runtime.connection import Status
from lightlink.server import EmbeddedServer
from lightlink.service import Service
from lightlink.state import BucketOptions, StateBucket, StateChange, StateEntry, StateWatch
from lightlink.subscription import Subscription

if TYPE_CHECKING:
    from lightlink.commands import (
        Agent,
        AgentMessage,
        AuditEntry,
        Batch,
        Cancelled,
        Command,
        CommandContext,
        CommandExecutor,
        CommandManager,
        CommandPromise,
        Page,
        Presence,
        Progress,
        Receipt,
        Rejected,
        StoreOptions,
        UnknownCommand,
    )

__all__ = [
    "TLS",
    "Agent",
    "AgentInUse",
    "AgentMessage",
    "AgentOffline",
    "AuditEntry",
    "AuthenticationError",
    "Batch",
    "BucketOptions",
    "CallError",
    "CallTimeout",
    "Cancelled",
    "Client",
    "ClosedError",
    "Command",
    "CommandCancelled",
    "CommandContext",
    "CommandEnded",
    "CommandError",
    "CommandExecutor",
    "CommandFailed",
    "CommandManager",
    "CommandNotFound",
    "CommandPromise",
    "CommandTimeout",
    "ConnectError",
    "ConnectOptions",
    "DeadlineExceeded",
    "DecodeError",
    "EmbeddedServer",
    "EncodeError",
    "FileCorrupt",
    "FileInfo",
    "FileStore",
    "FlushTimeout",
    "HandlerError",
    "InvalidArguments",
    "InvalidName",
    "InvalidOption",
    "InvalidRequest",
    "LightLinkError",
    "LinkError",
    "Message",
    "MessageTimeout",
    "MethodNotFound",
    "NoMessage",
    "NotReady",
    "OutboxFull",
    "Page",
    "PayloadTooLarge",
    "PermissionDenied",
    "Presence",
    "Progress",
    "Receipt",
    "Rejected",
    "RemoteError",
    "Request",
    "Retry",
    "RevisionConflict",
    "ServerError",
    "Service",
    "ServiceBusy",
    "ServiceProxy",
    "ServiceUnavailable",
    "StateBucket",
    "StateChange",
    "StateEntry",
    "StateError",
    "StateNotFound",
    "StateWatch",
    "Status",
    "StoreOptions",
    "StoreUnavailable",
    "StoredFileNotFound",
    "Subscription",
    "TransferStalled",
    "UnknownCommand",
    "connect",
]

# Commands are a half of their own: a program that only uses the link does not wait for them to be imported.
_COMMANDS = frozenset(
    {
        "Agent",
        "AgentMessage",
        "AuditEntry",
        "Batch",
        "Cancelled",
        "Command",
        "CommandContext",
        "CommandExecutor",
        "CommandManager",
        "CommandPromise",
        "Page",
        "Presence",
        "Progress",
        "Receipt",
        "Rejected",
        "StoreOptions",
        "UnknownCommand",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _COMMANDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightlink import commands  # noqa: PLC0415

    globals().update({each: getattr(commands, each) for each in _COMMANDS})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
