"""Judge programs of other languages by docs/wire.md: ``lightlink conformance``.

``Vectors`` reads the calls in ``vectors.json``: `judge_service` asks a service what a caller may ask, `ClientJudge` is
the service that a client under test calls. `judge_agent` sends an agent what a manager sends; `StepJudge` tells a
program what to publish, store and send, and looks at what that left on the wire. Each of their checks names the
sentence of docs/wire.md that it holds a program to. What programs are told is in docs/conformance.md.
"""

from lightlink.conformance.agent_checks import AGENT, judge_agent
from lightlink.conformance.checks import Check, Checks
from lightlink.conformance.client_judge import ClientJudge
from lightlink.conformance.service_judge import judge_service
from lightlink.conformance.step_judge import STEP_CHECKS, StepJudge
from lightlink.conformance.vectors import ClientVector, ServiceVector, Vectors, Verdict

__all__ = [
    "AGENT",
    "STEP_CHECKS",
    "Check",
    "Checks",
    "ClientJudge",
    "ClientVector",
    "ServiceVector",
    "StepJudge",
    "Vectors",
    "Verdict",
    "judge_agent",
    "judge_service",
]
