"""Commands: sent to named agents that may be offline, followed to their end, with their results as promises."""

from lightlink.commands.agent import Agent
from lightlink.commands.audit import AuditEntry
from lightlink.commands.batch import Batch
from lightlink.commands.context import Cancelled, CommandContext
from lightlink.commands.handlers import CommandExecutor, Rejected, UnknownCommand
from lightlink.commands.history import Page
from lightlink.commands.manager import CommandManager
from lightlink.commands.messages import AgentMessage, Receipt
from lightlink.commands.model import Command, Progress
from lightlink.commands.presence import Presence
from lightlink.commands.promise import CommandPromise
from lightlink.commands.schema import StoreOptions

__all__ = [
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
]
