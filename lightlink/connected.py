"""What serves through a client: one that it is given, or one of its own, which it connects and closes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightlink.client import Client, connect
from lightlink.concurrency.lifecycle import Lifecycle, Stage
from lightlink.errors import InvalidOption, NotReady
from lightlink.options import ConnectOptions
from lightlink.validators import functions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightlink.middleware import Middleware


class Connected(Lifecycle):
    """A service or an agent, as far as its connection goes. ``title`` is what errors call it: ``service 'math'``."""

    def __init__(
        self,
        title: str,
        name: str,
        target: Client | str | Sequence[str] | None,
        options: Mapping[str, Any],
        own_options: Sequence[str],
        middleware: Sequence[Middleware],
    ) -> None:
        super().__init__()
        if isinstance(target, Client) and options:
            raise InvalidOption(", ".join(options), "belongs to the client, which is given")
        ConnectOptions.check_names(options, own_options)
        self._title = title
        self._target = target
        self._options: dict[str, Any] = {"name": name, "wait": math.inf, **options}
        self._middleware = functions("middleware", middleware)
        self._client: Client | None = target if isinstance(target, Client) else None

    def use(self, url: str | Sequence[str] | None = None, **options: Any) -> None:
        """Connect elsewhere, or otherwise, than the constructor said; what is None stays as it was.

        Raises NotReady after the start, InvalidOption where a client was given.
        """
        self._refuse_after_start("another connection")
        if isinstance(self._target, Client):
            raise InvalidOption("url", f"{self._title} was given a client, whose connection is made already")
        self._target = url or self._target
        ConnectOptions.check_names(options)
        self._options |= {name: value for name, value in options.items() if value is not None}

    @property
    def client(self) -> Client:
        """The client that it talks through; raises NotReady before the start."""
        if self._client is None:
            raise NotReady(self._title, "has no client before it is started")
        return self._client

    @property
    def _has_own_client(self) -> bool:
        """Whether it has made its client, and is to close it."""
        return self._client is not None and self._client is not self._target

    def _prepare(self) -> Client:
        if self._client is None:
            # Lazy, so that `stop` can end the wait for a server that is not there yet.
            around = (*self._options.get("middleware", ()), *self._middleware)
            options = {**self._options, "middleware": around, "lazy": True}
            client = connect(self._target, **options)  # type: ignore[arg-type]
            self._client = client
            try:
                client.open()
            except BaseException:
                self._client = None
                raise
        return self._client

    def _refuse_after_start(self, what: str) -> None:
        if self._stage is not Stage.NEW:
            raise NotReady(what, f"comes too late: {self._title} is {self._stage.value}")
