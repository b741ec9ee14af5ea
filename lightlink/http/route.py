"""What is known of a call before anybody makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from lightlink.http.access import READ

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.http.call import Call


@attrs.frozen(kw_only=True, eq=False)
class Route:
    """One call. ``scope`` is what a token must be good for, None when none is needed.

    ``replies`` are the types of the replies that are not Problems, by status; ``problems`` the statuses that are,
    beside those that each call has. ``content`` is what a reply that is not JSON is, ``takes`` what a body that is not.
    """

    method: str
    path: str
    view: Callable[[Call], Any]
    summary: str
    scope: str | None = READ
    query: type[Any] | None = None
    body: type[Any] | None = None
    body_is_optional: bool = False
    replies: dict[int, Any] = attrs.field(factory=dict)
    problems: tuple[int, ...] = ()
    content: str = "application/json"
    takes: str = "application/json"

    @property
    def name(self) -> str:
        """The name of the call, which no other has."""
        return self.view.__name__
