"""Many calls of one method from one thread, a number of them under way at a time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import attrs

from lightlink.concurrency.queues import Results
from lightlink.errors import ClosedError, InvalidOption, LightLinkError
from lightlink.validators import integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from lightlink.protocol.codec import HeaderMap
    from lightlink.rpc.caller import Caller, OpenCall, SubmittedCall

# What becomes of a call that fails: its error ends the map, or stands in the place of its result.
Errors = Literal["raise", "return"]


@attrs.frozen(kw_only=True)
class CallMap:
    """Calls of a method with one set of arguments after the other; see `Client.map`."""

    caller: Caller
    service: str
    method: str
    concurrency: int
    limit: float
    returns: Any
    headers: HeaderMap | None
    errors: Errors

    def __attrs_post_init__(self) -> None:
        integer("concurrency", self.concurrency)
        if self.errors not in ("raise", "return"):
            raise InvalidOption("errors", "must be 'raise' or 'return'", self.errors)

    def in_order(self, arguments: Iterable[Any]) -> Iterator[Any]:
        """Yield the results in the order of the arguments, of which no more are taken than may be under way."""
        under_way: deque[OpenCall | SubmittedCall | LightLinkError] = deque()
        given = iter(arguments)
        try:
            for args in given:
                under_way.append(self._begin(args))
                if len(under_way) == self.concurrency:
                    yield self._end(under_way.popleft())
            while under_way:
                yield self._end(under_way.popleft())
        finally:
            # An iteration that was abandoned or interrupted waits for nothing.
            for call in under_way:
                if not isinstance(call, LightLinkError):
                    call.withdraw()

    def as_completed(self, arguments: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (place among the arguments, result) as the results come."""
        done: Results[tuple[int, Future[Any] | LightLinkError]] = Results()
        under_way: dict[int, Future[Any]] = {}
        count = 0
        try:
            for place, args in enumerate(arguments):
                self._submit(place, args, under_way, done)
                count += 1
                if count == self.concurrency:
                    count -= 1
                    yield self._next(under_way, done)
            for _ in range(count):
                yield self._next(under_way, done)
        finally:
            for future in list(under_way.values()):
                future.cancel()

    def _begin(self, args: Any) -> OpenCall | SubmittedCall | LightLinkError:
        try:
            return self.caller.begin(self.service, self.method, args, self.limit, self.returns, self.headers)
        except LightLinkError as exc:
            return self._value_of(exc)

    def _end(self, call: OpenCall | SubmittedCall | LightLinkError) -> Any:
        if isinstance(call, LightLinkError):
            return call
        try:
            return call.result()
        except LightLinkError as exc:
            return self._value_of(exc)

    def _submit(
        self,
        place: int,
        args: Any,
        under_way: dict[int, Future[Any]],
        done: Results[tuple[int, Future[Any] | LightLinkError]],
    ) -> None:
        try:
            future = self.caller.submit(self.service, self.method, args, self.limit, self.returns, self.headers)
        except LightLinkError as exc:
            done.put((place, self._value_of(exc)))
            return
        under_way[place] = future
        future.add_done_callback(_putter(done, place))

    def _next(
        self, under_way: dict[int, Future[Any]], done: Results[tuple[int, Future[Any] | LightLinkError]]
    ) -> tuple[int, Any]:
        self.caller.refuse_callbacks()
        place, call = done.get()
        under_way.pop(place, None)
        if isinstance(call, LightLinkError):
            return place, call
        try:
            return place, call.result()
        except LightLinkError as exc:
            return place, self._value_of(exc)

    def _value_of(self, error: LightLinkError) -> LightLinkError:
        """Return an error that stands for a result, or raise it: by a closed client every further call fails."""
        if self.errors == "raise" or isinstance(error, ClosedError):
            raise error
        return error


def _putter(done: Results[tuple[int, Future[Any] | LightLinkError]], place: int) -> Callable[[Future[Any]], None]:
    return lambda future: done.put((place, future))
