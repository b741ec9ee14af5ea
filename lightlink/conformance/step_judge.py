"""The service that tells a program under test what to do, step by step, and looks at what that left on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.conformance.checks import Fault, Skipped, Wire
from lightlink.conformance.event_checks import EVENTS
from lightlink.conformance.file_checks import FILES
from lightlink.conformance.judge import Judge
from lightlink.conformance.manager_checks import MANAGER
from lightlink.conformance.state_checks import STATE
from lightlink.conformance.vectors import Verdict
from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from lightlink.client import Client
    from lightlink.conformance.checks import Check, Checks, Script, Step

STEP_CHECKS: dict[str, Checks[Script]] = {"events": EVENTS, "state": STATE, "files": FILES, "manager": MANAGER}


class StepJudge(Judge):
    """Judges one program's events, state, files, or managing of commands, which is ``kind``.

    The program calls ``next`` of the service until that returns ``{"done": true}``. Otherwise it returns ``{"do": ...,
    "args": {...}}``: the program does that, and tells ``report`` what came: ``{"result": ...}``, ``{"error": text}``,
    or ``{"skip": true}`` where it has no such thing. ``timeout`` is how many seconds what it did may take to show;
    ``only`` names the checks that are wanted. Raises InvalidOption.
    """

    def __init__(
        self,
        client: Client,
        kind: str,
        service: str = "conformance",
        timeout: float = 5.0,
        only: Collection[str] | None = None,
    ) -> None:
        self._wire = Wire(client, timeout)
        self._left = STEP_CHECKS[kind].named(only)
        STEP_CHECKS[kind].prepare(self._wire)
        self._running: Generator[Step, dict[str, Any], None] | None = None
        self._step: Step | None = None
        super().__init__(client, service)

    def _next(self) -> dict[str, Any] | None:
        while self._step is None:
            if not self._left:
                return None
            self._running = self._left[0].run(self._wire)
            self._go_on(None)
        return {"do": self._step.do, "args": self._step.args}

    def _report(self, outcome: dict[str, Any]) -> None:
        if self._step is not None:
            self._go_on(outcome)

    def _go_on(self, outcome: dict[str, Any] | None) -> None:
        """Have the check that is under way look at an outcome, until it asks for its next step or is through."""
        assert self._running is not None
        self._step = None
        try:
            if outcome is None:
                self._step = next(self._running)
            elif outcome.get("skip"):
                self._step = self._running.throw(Skipped())
            else:
                self._step = self._running.send(outcome)
        except StopIteration:
            self._end("")
        except (Fault, LightLinkError) as exc:
            self._end(str(exc))
        except Skipped:
            self._end("the program under test has no such thing", level="skip")

    def _end(self, fault: str, level: str = "") -> None:
        check: Check[Script] = self._left.pop(0)
        self._verdicts.put(Verdict(check.name, level or check.level, check.sentence, fault))
