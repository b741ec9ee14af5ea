"""What the judges share that a program under test calls: a service with the methods ``next`` and ``report``."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.concurrency.queues import Results
from lightlink.events.message import Message
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from lightlink.client import Client
    from lightlink.conformance.vectors import Verdict


class Judge(abc.ABC):
    """Asks a program under test for one thing after the other; see `lightlink.conformance`."""

    def __init__(self, client: Client, service: str) -> None:
        self._client = client
        self._service = service
        self._verdicts: Results[Verdict | None] = Results()
        self._subscription = client.subscribe(
            subjects.service_subject(service), self._take, queue="q", raw=True, concurrency=1
        )
        client.flush()

    def verdicts(self, timeout: float = 60.0) -> Iterator[Verdict]:
        """Yield a verdict for each check as the program under test reports, until it is through.

        Raises TimeoutError when it has not gone on for ``timeout`` seconds.
        """
        while True:
            try:
                verdict = self._verdicts.get(timeout)
            except TimeoutError:
                raise TimeoutError(f"the program under test has not gone on for {timeout:g} s") from None
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

    @abc.abstractmethod
    def _next(self) -> dict[str, Any] | None:
        """Return what the program under test is to do next, None when it is through."""

    @abc.abstractmethod
    def _report(self, outcome: dict[str, Any]) -> None:
        """Take what became of it."""

    def _other(self, method: str, message: Message, body: Any, request_id: str) -> None:  # noqa: ARG002
        """Answer a call of any other method."""
        failure = codec.encode_failure(request_id, codec.METHOD_NOT_FOUND, f"method not found: {method}")
        self._answer(message, failure)

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
            self._answer(message, codec.encode_success(request_id, self._next_or_done()))
        elif method == "report":
            self._report(args if isinstance(args, dict) else {})
            self._answer(message, codec.encode_success(request_id, {"taken": True}))
        else:
            self._other(method, message, body, request_id)

    def _next_or_done(self) -> dict[str, Any]:
        following = self._next()
        if following is None:
            self._verdicts.put(None)
            return {"done": True}
        return following

    def _answer(self, message: Message, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        if message.reply:
            lines = codec.encode_headers(dict(headers)) if headers else None
            self._client.connection.publish(message.reply.encode(), payload, headers=lines)
