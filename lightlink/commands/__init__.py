"""Commands: sent to named agents that may be offline, followed to their end, with their results as promises."""

from lightlink.commands.agent.agent import Agent
from lightlink.commands.agent.context import Cancelled, CommandContext
from lightlink.commands.agent.handlers import CommandExecutor, Rejected, Undoable, UnknownCommand
from lightlink.commands.manager.batch import Batch
from lightlink.commands.manager.inventory import AgentRecord
from lightlink.commands.manager.manager import CommandManager
from lightlink.commands.manager.promise import CommandPromise
from lightlink.commands.messages import AgentMessage, Receipt
from lightlink.commands.model import Command, Progress
from lightlink.commands.store.audit import AuditEntry
from lightlink.commands.store.history import Page
from lightlink.commands.store.presence import Presence
from lightlink.commands.store.schema import StoreOptions

__all__ = [
    "Agent",
    "AgentMessage",
    "AgentRecord",
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
    "Undoable",
    "UnknownCommand",
]
