"""The service that a client under test calls: it says what to call, answers by the vectors, and is told the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.conformance.judge import Judge
from lightlink.conformance.vectors import Vectors, Verdict, difference

if TYPE_CHECKING:
    from lightlink.client import Client
    from lightlink.conformance.vectors import ClientVector
    from lightlink.events.message import Message


class ClientJudge(Judge):
    """Judges one client of another language.

    The client calls ``next`` of the service until that returns ``{"done": true}``. Otherwise it returns ``{"method":
    "judge", "args": {...}}``: the client calls that, and tells ``report`` what came: ``{"result": ...}``, or
    ``{"error": text, "code": code}``, with null for a code that there is not.
    """

    def __init__(self, client: Client, service: str = "conformance") -> None:
        self._left = Vectors.load().clients
        self._ids: set[str] = set()
        self._fault = ""
        self._called = False
        super().__init__(client, service)

    def _next(self) -> dict[str, Any] | None:
        if not self._left:
            return None
        self._called = False
        return {"method": "judge", "args": self._left[0].args}

    def _report(self, outcome: dict[str, Any]) -> None:
        if not self._left:
            return
        vector = self._left.pop(0)
        fault = self._fault if self._called else "the client reports, and has not called"
        fault = fault or difference(vector.outcome, outcome, "outcome")
        if not fault and "error" in vector.outcome and "result" in outcome:
            fault = "the client takes an error for a result"
        self._verdicts.put(Verdict(vector.name, vector.level, vector.why, fault))

    def _other(self, method: str, message: Message, body: Any, request_id: str) -> None:
        if method != "judge" or not self._left:
            super()._other(method, message, body, request_id)
            return
        self._called, self._fault = True, self._fault_of(message, body, request_id)
        vector = self._left[0]
        self._answer(message, vector.payload(request_id), vector.reply_headers)

    def _fault_of(self, message: Message, body: Any, request_id: str) -> str:
        """Say what is wrong with the request of a client, "" if nothing is."""
        used, vector = request_id in self._ids, self._left[0]
        self._ids.add(request_id)
        if not request_id or used:
            return "the request's id is missing, or was used before"
        return difference(_request_of(vector), body, "request") or _reply_fault(message)


def _request_of(vector: ClientVector) -> dict[str, Any]:
    return {"id": {"$type": "string"}, "method": "judge", "args": vector.args}


def _reply_fault(message: Message) -> str:
    return "" if message.reply else "the request names no subject for its reply"
