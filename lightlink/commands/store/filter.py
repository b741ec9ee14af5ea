"""Which commands somebody asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from lightlink.commands import model
from lightlink.commands.store import checks, schema
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from datetime import datetime

    from lightlink.commands.model import RequestRecord


@attrs.frozen(kw_only=True)
class Filter:
    """Which commands to list; what is None does not matter. Times are aware datetimes.

    ``clients`` are several agents, of which each will do.
    """

    client_id: str | None = None
    clients: frozenset[str] | None = None
    status: str | None = None
    command_type: str | None = None
    batch_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __attrs_post_init__(self) -> None:
        if self.status is not None and self.status not in model.STATUSES:
            raise InvalidOption("status", f"must be one of {', '.join(model.STATUSES)}", self.status)
        checks.text_or_none("command_type", self.command_type)
        checks.text_or_none("batch_id", self.batch_id)
        checks.aware("since", self.since)
        checks.aware("until", self.until)

    @property
    def earliest(self) -> datetime | None:
        """Before when, by the server's clock, nothing that passes was stored; None when that is not known."""
        made_at = None if self.batch_id is None else schema.batch_made_at(self.batch_id)
        bounds = [bound for bound in (self.since, made_at) if bound is not None]
        return model.shortly_before(max(bounds)) if bounds else None

    @property
    def shows_unreadable(self) -> bool:
        """Whether a request that cannot be read passes: it has failed, and of its type and batch nothing is known."""
        return self.status in (None, model.FAILED) and self.command_type is None and self.batch_id is None

    @property
    def is_selective(self) -> bool:
        """Whether so few commands may pass that an index finds them sooner."""
        return any(each is not None for each in (self.status, self.command_type, self.batch_id, self.clients))

    def is_of(self, client_id: str) -> bool:
        """Tell whether the commands of an agent may pass."""
        return self.client_id in (None, client_id) and (self.clients is None or client_id in self.clients)

    def wants(self, request: RequestRecord) -> bool:
        """Tell whether a request passes, its status left aside."""
        return (
            self.is_of(request.client_id)
            and (self.command_type is None or request.command_type == self.command_type)
            and (self.batch_id is None or request.batch_id == self.batch_id)
            and (self.since is None or request.created_at >= self.since)
            and (self.until is None or request.created_at <= self.until)
        )
