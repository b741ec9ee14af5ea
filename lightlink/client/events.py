"""Events for the subscribers of the moment: publish, flush, subscribe."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from lightlink.client.base import ClientBase, publishing
from lightlink.errors import InvalidOption
from lightlink.events.subscription import DEFAULT_MAX_PENDING, Subscription
from lightlink.interactive import replace, typed_name
from lightlink.logs import in_handler, outgoing
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from lightlink.protocol.codec import HeaderMap

    Handler = TypeVar("Handler", bound=Callable[[Any], object])


class Events(ClientBase):
    """A client's events."""

    def publish(self, subject: str, data: Any = None, *, headers: HeaderMap | None = None) -> None:
        """Publish data on a subject: bytes as they are, everything else as JSON.

        ``headers`` reach the handler as `Message.headers`; a name may have several values, in a list.

        Returns at once; one thread's messages keep their order. Raises InvalidName, EncodeError and PayloadTooLarge
        before anything is sent, OutboxFull when the server takes no more, ClosedError.
        """
        if self._middleware.is_used:
            call = publishing(subject, data, headers)
            self._middleware.run(call, lambda given: self._publish(subject, given.args, given.headers))
        elif headers or in_handler() is not None:
            self._publish(subject, data, headers)
        else:
            # As `_publish` does it, without what most messages do not need: a microsecond is all that one costs.
            payload = data if data.__class__ is bytes else codec.encode(data, "the message for", subject)
            try:
                encoded = subjects.known_publish_subject(subject)
            except TypeError:
                encoded = subjects.publish_subject(subject)  # it says what is wrong
            self._connection.publish(encoded, payload)

    def _publish(self, subject: str, data: Any, headers: HeaderMap | None) -> None:
        given = outgoing(headers)
        block = codec.encode_headers(codec.checked_headers(given)) if given else None
        payload = data if data.__class__ is bytes else codec.encode(data, "the message for", subject)
        self._connection.publish(subjects.publish_subject(subject), payload, headers=block)

    def flush(self, timeout: float | None = None) -> None:
        """Return when the server has everything published so far.

        Raises FlushTimeout after ``timeout`` seconds, PermissionDenied when the server refused a publish since the last
        flush, DeliveryUnknown (once) when a connection was lost meanwhile with messages that no flush had confirmed.
        """
        self._connection.flush(self._limit(timeout))

    def subscribe(
        self,
        subject: str,
        handler: Callable[[Any], object] | None = None,
        *,
        queue: str = "",
        raw: bool = False,
        max_pending: int = DEFAULT_MAX_PENDING,
        concurrency: int = 1,
        after_fork: bool = False,
    ) -> Subscription:
        """Subscribe to a subject, which may hold the wildcards ``*`` and ``>``.

        ``handler(data)`` runs on a worker thread; annotated with `Message` it gets the whole message, annotated with
        another type the data as that type. Without a handler, iterate over the subscription or `get` from it.
        Members of one ``queue`` group share the messages. ``raw`` leaves the data as bytes. With ``after_fork`` each
        process that is forked later, say a web server's worker, receives too; otherwise this one alone does.

        Raises InvalidName, InvalidOption, PermissionDenied, ClosedError.
        """
        subscription = Subscription(
            self._connection,
            self._connection.session.workers,
            subject,
            handler,
            queue=queue,
            raw=raw,
            max_pending=max_pending,
            concurrency=concurrency,
            after_fork=after_fork,
        )
        self._subscriptions.add(subscription)
        return subscription

    def on(
        self, subject: str, *, queue: str = "", raw: bool = False, after_fork: bool = False
    ) -> Callable[[Handler], Handler]:
        """Subscribe the decorated function, which is returned; see `subscribe`.

        ``function.subscription`` is what to stop. In a notebook, or at Python's prompt, a function of the same name for
        the same subject takes the place of the one before: a cell may be run again.
        """
        if callable(subject):
            raise InvalidOption("on", "name the subject: @client.on('events.>')")

        def decorate(handler: Handler) -> Handler:
            subscription = self.subscribe(subject, handler, queue=queue, raw=raw, after_fork=after_fork)
            with contextlib.suppress(AttributeError, TypeError):  # a method, or what takes no attributes
                handler.subscription = subscription  # type: ignore[attr-defined]
            name = typed_name(handler)
            if name is not None:
                replace((id(self), name, subject, queue), f"the handler {name} of {subject!r}", subscription)
            return handler

        return decorate
