"""What goes wrong with plans and their runs."""

from __future__ import annotations

from lightlink.errors.base import LightLinkError


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
