"""What admins ask of the responders: tokens, decisions, revocation, and what the fleet remembers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.errors import FleetRefused, InvalidOption
from lightlink.protocol.permissions import RIGHTS, Grant, identity_name
from lightlink.validators import integer, string_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.fleet.audit import Audit
    from lightlink.fleet.records import Identities, TokenRecord, Tokens
    from lightlink.fleet.signer import Signer

_MOST_AUDITED = 10_000
_MOST_BY = 256


class Operations:
    """Answers ``ll.fleet.op.<operation>``; who may ask is decided by permissions (admins).

    What lists answers ``{found, after}``, about ``page_bytes`` at a time; who gives that ``after``, unless it is empty,
    is told what follows.
    """

    def __init__(
        self,
        signer: Signer,
        identities: Identities,
        tokens: Tokens,
        audit: Audit,
        put_out: Callable[[str], object],
        health: Callable[[], dict[str, Any]],
        page_bytes: int,
    ) -> None:
        self._signer = signer
        self._identities = identities
        self._tokens = tokens
        self._audit = audit
        self._put_out = put_out
        self._health = health
        self._page_bytes = page_bytes
        self._operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "token": self._token,
            "tokens": self._open_tokens,
            "pending": self._pending,
            "decide": self._decide,
            "revoke": self._revoke,
            "list": self._list,
            "audit": self._entries,
            "status": lambda _: {"process": os.getpid(), **self._health()},
        }

    def answer(self, subject: str, body: dict[str, Any]) -> Any:
        """Return the result of an operation; raises FleetRefused for one that is not known."""
        name = subject.rpartition(".")[2]
        function = self._operations.get(name)
        if function is None:
            raise FleetRefused("operation", f"there is no operation {name}", "unknown")
        return function(body)

    def _token(self, body: dict[str, Any]) -> dict[str, Any]:
        labels = _labels(body.get("labels", {}))
        urls = body.get("urls")
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise InvalidOption("urls", "must be a list of at least one URL", urls)
        name = identity_name(body.get("name", ""), "agent")
        grant = _grant(body.get("role", "agent"), body.get("rights", {}))
        approve = bool(body.get("approve"))
        text, token = self._signer.make_token(name, urls, body.get("hours", 1), labels, approve, grant, _by(body))
        return {"token": text, "id": token.id, "expires": token.expires}

    def _open_tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._page(self._signer.open_tokens(), _place_of_token, body)

    def _pending(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._page(self._signer.waiting(), _place_of_token, body)

    def _decide(self, body: dict[str, Any]) -> Any:
        decision = body.get("decision")
        if decision not in ("accepted", "rejected"):
            raise InvalidOption("decision", "must be accepted or rejected", decision)
        which = str(body.get("name", "")), str(body.get("token", ""))
        return msgspec.to_builtins(self._signer.decide(str(body.get("fingerprint")), decision, _by(body), *which))

    def _revoke(self, body: dict[str, Any]) -> dict[str, Any]:
        name = identity_name(body.get("name", ""))
        revoked = self._signer.revoke(name, str(body.get("reason", "")), _by(body))
        self._put_out(name)
        return {"name": name, "serial": revoked.serial, "revoked_at": revoked.revoked_at}

    def _list(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._page(self._identities.all(), lambda each: each.name, body)

    def _entries(self, body: dict[str, Any]) -> dict[str, Any]:
        limit, after = body.get("limit", 100), str(body.get("after", ""))
        integer("limit", limit, 1, _MOST_AUDITED)
        entries, read = self._audit.read(limit, int(after) if after.isdecimal() else 0, self._page_bytes)
        return {"found": msgspec.to_builtins(entries), "after": str(read or "")}

    def _page(self, records: Sequence[Any], place: Callable[[Any], str], body: dict[str, Any]) -> dict[str, Any]:
        """Return the first of the records, which are in the order of their places, that come after a place."""
        after, size = str(body.get("after", "")), 0
        found: list[Any] = []
        for record in records:
            if after and place(record) <= after:
                continue
            size += len(msgspec.json.encode(record))
            if found and size > self._page_bytes:
                return {"found": msgspec.to_builtins(found), "after": place(found[-1])}
            found.append(record)
        return {"found": msgspec.to_builtins(found), "after": ""}


def _place_of_token(token: TokenRecord) -> str:
    return f"{token.name} {token.id}"


def _grant(role: Any, rights: Any) -> Grant:
    if role == "admin":
        raise InvalidOption("role", "an admin's certificate is made where the key of the CA is", role)
    if not isinstance(rights, dict) or not all(isinstance(value, list) for value in rights.values()):
        raise InvalidOption("rights", "must be an object of lists of strings", rights)
    if unknown := rights.keys() - RIGHTS:
        raise InvalidOption("rights", f"must be among {', '.join(RIGHTS)}", sorted(map(str, unknown)))
    return Grant.of(str(role), **rights)


def _by(body: dict[str, Any]) -> dict[str, str]:
    """Return who has decided, as far as the admin tells: a person behind a server, say."""
    by = str(body.get("by", ""))[:_MOST_BY]
    return {"by": by} if by else {}


def _labels(labels: Any) -> dict[str, str]:
    return string_map("labels", labels)
