"""The service that a client under test calls: it says what to call, answers by the vectors, and is told the outcome."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.conformance.vectors import Vectors, Verdict, difference
from lightlink.events.message import Message
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from lightlink.client import Client
    from lightlink.conformance.vectors import ClientVector


class ClientJudge:
    """Judges one client of another language.

    The client calls ``next`` of the service until that returns ``{"done": true}``. Otherwise it returns ``{"method":
    "judge", "args": {...}}``: the client calls that, and tells ``report`` what came: ``{"result": ...}``, or
    ``{"error": text, "code": code}``, with null for a code that there is not.
    """

    def __init__(self, client: Client, service: str = "conformance") -> None:
        self._client = client
        self._service = service
        self._left = Vectors.load().clients
        self._verdicts: queue.SimpleQueue[Verdict | None] = queue.SimpleQueue()
        self._ids: set[str] = set()
        self._fault = ""
        self._called = False
        self._subscription = client.subscribe(
            subjects.service_subject(service), self._take, queue="q", raw=True, concurrency=1
        )
        client.flush()

    def verdicts(self, timeout: float = 60.0) -> Iterator[Verdict]:
        """Yield a verdict for each vector as the client under test reports, until it is through.

        Raises TimeoutError when it has not gone on for ``timeout`` seconds.
        """
        while True:
            try:
                verdict = self._verdicts.get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError(f"the client has not gone on for {timeout:g} s") from None
            if verdict is None:
                return
            yield verdict

    def stop(self) -> None:
        """Answer no more."""
        self._subscription.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take(self, message: Message) -> None:
        method = message.subject.rpartition(".")[2]
        try:
            body = msgspec.json.decode(message.data)
        except msgspec.DecodeError:
            body = None
        request_id = body.get("id") if isinstance(body, dict) else None
        request_id = request_id if isinstance(request_id, str) else ""
        args = body.get("args") if isinstance(body, dict) else None
        if method == "next":
            self._answer(message, codec.encode_success(request_id, self._next()))
        elif method == "report" and self._left:
            self._judge(args)
            self._answer(message, codec.encode_success(request_id, {"taken": True}))
        elif method == "judge" and self._left:
            self._called, self._fault = True, self._fault_of(message, body, request_id)
            vector = self._left[0]
            self._answer(message, vector.payload(request_id), vector.reply_headers)
        else:
            failure = codec.encode_failure(request_id, codec.METHOD_NOT_FOUND, f"method not found: {method}")
            self._answer(message, failure)

    def _next(self) -> dict[str, Any]:
        if self._left:
            self._called = False
            return {"method": "judge", "args": self._left[0].args}
        self._verdicts.put(None)
        return {"done": True}

    def _judge(self, outcome: Any) -> None:
        vector = self._left.pop(0)
        fault = self._fault if self._called else "the client reports, and has not called"
        found = outcome if isinstance(outcome, dict) else {}
        fault = fault or difference(vector.outcome, found, "outcome")
        if not fault and "error" in vector.outcome and "result" in found:
            fault = "the client takes an error for a result"
        self._verdicts.put(Verdict(vector.name, vector.level, vector.why, fault))

    def _fault_of(self, message: Message, body: Any, request_id: str) -> str:
        """Say what is wrong with the request of a client, "" if nothing is."""
        used, vector = request_id in self._ids, self._left[0]
        self._ids.add(request_id)
        if not request_id or used:
            return "the request's id is missing, or was used before"
        return difference(_request_of(vector), body, "request") or _reply_fault(message)

    def _answer(self, message: Message, payload: bytes, headers: dict[str, str] | None = None) -> None:
        if message.reply:
            lines = codec.encode_headers(dict(headers)) if headers else None
            self._client.connection.publish(message.reply.encode(), payload, headers=lines)


def _request_of(vector: ClientVector) -> dict[str, Any]:
    return {"id": {"$type": "string"}, "method": "judge", "args": vector.args}


def _reply_fault(message: Message) -> str:
    return "" if message.reply else "the request names no subject for its reply"
