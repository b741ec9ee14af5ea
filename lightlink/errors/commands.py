"""What goes wrong with commands and with fleets of agents."""

from __future__ import annotations

from typing import Any

from lightlink.errors.base import LightLinkError


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


class FleetError(LightLinkError):
    """An operation of a fleet that failed; ``reason`` says why."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}"


class FleetRefused(FleetError):
    """A fleet said no, and will again; ``code`` tells the reasons apart: ``used``, ``expired``, ``other_name``, ..."""

    code: str
