"""Make requests: checked before anything is sent."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.commands.model import RequestRecord
from lightlink.commands.store import checks, schema
from lightlink.commands.store.store import encoded_request
from lightlink.errors import PayloadTooLarge
from lightlink.protocol import codec
from lightlink.protocol.ids import new_id
from lightlink.validators import field, integer, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lightlink.protocol.codec import HeaderMap

_MAX_PRIORITY = 1_000_000
# Room for the headers of a request, which the server counts too.
_HEADERS = 128
# With a caller's key, the command's id is a UUIDv5 in this namespace: sending twice brings the same command.
_NAMESPACE = uuid.UUID("6f0c1f0e-6a2f-5c59-9d3b-8f1d6f8f5a11")


def _seconds(value: Any) -> float:
    return seconds("timeout", value)


def _headers(value: HeaderMap | None) -> dict[str, str | list[str]] | None:
    return codec.checked_headers(value) or None if value else None


def _text(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    checks.text(attribute.name.replace("_", " "), value)


@attrs.frozen(kw_only=True)
class Template:
    """A command without the agent it is for. ``timeout`` in seconds; ``payload`` is encoded once for all."""

    command_type: str = attrs.field(validator=_text)
    payload: Any
    timeout: float = attrs.field(converter=_seconds)
    priority: int = attrs.field(validator=field(integer, -_MAX_PRIORITY, _MAX_PRIORITY))
    created_at: datetime
    batch_id: str | None = None
    issued_by: str = attrs.field(validator=_text)
    headers: dict[str, str | list[str]] | None = attrs.field(default=None, converter=_headers)
    _encoded: msgspec.Raw = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        encoded = codec.encode_json(self.payload, f"the payload of {self.command_type!r}")
        object.__setattr__(self, "_encoded", msgspec.Raw(encoded))

    def to(self, client_id: str, idempotency_key: str | None = None) -> RequestRecord:
        """Return the request for one agent, made now; raises InvalidName, InvalidOption."""
        schema.client_id(client_id)
        if idempotency_key is None:
            return self._request(client_id, new_id())
        checks.text("idempotency_key", idempotency_key)
        command_id = str(uuid.uuid5(_NAMESPACE, f"{self.issued_by}\0{idempotency_key}"))
        return self._request(client_id, command_id, idempotency_key)

    def to_each(self, client_ids: Sequence[str]) -> list[RequestRecord]:
        """Return the requests for many agents, whose ids were checked before."""
        return [self._request(client_id, new_id()) for client_id in client_ids]

    def _request(self, client_id: str, command_id: str, idempotency_key: str | None = None) -> RequestRecord:
        return RequestRecord(
            command_id=command_id,
            client_id=client_id,
            command_type=self.command_type,
            created_at=self.created_at,
            timeout=self.timeout,
            payload=self._encoded,
            priority=self.priority,
            batch_id=self.batch_id,
            issued_by=self.issued_by,
            idempotency_key=idempotency_key,
            headers=self.headers,
        )


def refuse_too_large(requests: Sequence[RequestRecord], limit: int) -> None:
    """Raise PayloadTooLarge when the largest of some requests for the same command is."""
    if requests:
        subject, payload = encoded_request(max(requests, key=lambda request: len(request.client_id)))
        if len(payload) + _HEADERS > limit:
            raise PayloadTooLarge(subject, len(payload), limit)
