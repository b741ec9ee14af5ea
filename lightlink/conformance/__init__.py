"""Judge services and clients of other languages by the vectors in ``vectors.json``: ``lightlink conformance``.

``Vectors`` reads them, `judge_service` asks a service what a caller may ask, `ClientJudge` is the service that a client
under test calls. What either is told is in docs/conformance.md.
"""

from lightlink.conformance.client_judge import ClientJudge
from lightlink.conformance.service_judge import judge_service
from lightlink.conformance.vectors import ClientVector, ServiceVector, Vectors, Verdict

__all__ = ["ClientJudge", "ClientVector", "ServiceVector", "Vectors", "Verdict", "judge_service"]
