"""Views of a fleet: machines that wait to be accepted, who is in, and who is put out."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET
from werkzeug.exceptions import Conflict, NotFound
from werkzeug.exceptions import NotImplemented as HttpNotImplemented

from lightlink.errors import FleetRefused, PermissionDenied
from lightlink.http.fleet_schemas import (
    EnrolmentList,
    EnrolmentView,
    IdentityList,
    IdentityView,
    OneEnrolment,
    OpenToken,
    Revoked,
    TokenList,
    TokenMade,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import UnsetType

    from lightlink.fleet import Fleet, Identity, TokenRecord
    from lightlink.http.call import Call

T = TypeVar("T")


def make_token(call: Call) -> TokenMade:
    """Make a token for an agent; other roles are an admin's to give out, with `lightlink fleet token`."""
    body = call.body
    call.check(body.name)
    fleet = _fleet(call)
    with call.seat():
        options = {"hours": body.hours, "labels": body.labels, "approve": body.approve, "urls": body.urls}
        text = _asked(lambda: fleet.token(body.name, by=call.issued_by or "", **options))
    return TokenMade(name=body.name, token=text)


def list_tokens(call: Call) -> TokenList:
    """List the tokens that can still be used."""
    fleet = _fleet(call)
    with call.seat():
        found = _asked(fleet.tokens)
    return TokenList(tokens=[_open_token(each) for each in found if call.may_address(each.name)])


def list_enrolments(call: Call) -> EnrolmentList:
    """List the machines that wait for somebody to accept or reject them."""
    return EnrolmentList(requests=[_enrolment(each) for each in _pending(call)])


def accept_enrolment(call: Call) -> OneEnrolment:
    """Let a machine have its certificate."""
    return _decide(call, "accepted")


def reject_enrolment(call: Call) -> OneEnrolment:
    """Refuse a machine its certificate."""
    return _decide(call, "rejected")


def list_identities(call: Call) -> IdentityList:
    """List who was enrolled, renewed or revoked."""
    fleet = _fleet(call)
    with call.seat():
        found = _asked(fleet.identities)
    return IdentityList(identities=[_identity(each) for each in found if call.may_address(each.name)])


def revoke_identity(call: Call) -> Revoked:
    """Put an identity out, and keep it out."""
    call.check(call.body.name)
    fleet = _fleet(call)
    with call.seat():
        _asked(lambda: fleet.revoke(call.body.name, call.body.reason, by=call.issued_by or ""))
    return Revoked(name=call.body.name)


def _decide(call: Call, decision: str) -> OneEnrolment:
    request = _the_one(call)
    fleet = _fleet(call)
    decide = fleet.accept if decision == "accepted" else fleet.reject
    with call.seat():
        # Of the same key there may be requests that the token is not good for.
        decided = _asked(lambda: decide(request.fingerprint, token=request.id, by=call.issued_by or ""))
    return OneEnrolment(request=_enrolment(decided))


def _the_one(call: Call) -> TokenRecord:
    """Return the request that is decided about, among those that the token may see."""
    body = call.body
    found = [
        each
        for each in _pending(call)
        if each.fingerprint == body.fingerprint and body.name in ("", each.name) and body.id in ("", each.id)
    ]
    if not found:
        raise NotFound(f"Request not found, or its token has expired: {body.fingerprint}")
    if len(found) > 1:
        several = ", ".join(f"{each.name} (id {each.id})" for each in found)
        raise Conflict(f"several wait with this fingerprint, give a name or an id: {several}")
    return found[0]


def _pending(call: Call) -> list[TokenRecord]:
    """Return the requests that the token may see."""
    fleet = _fleet(call)
    with call.seat():
        return [each for each in _asked(fleet.pending) if call.may_address(each.name)]


def _fleet(call: Call) -> Fleet:
    try:
        from lightlink.fleet import Fleet  # noqa: PLC0415 - the packages of the extra may be missing
    except ModuleNotFoundError as exc:
        raise HttpNotImplemented(str(exc)) from exc
    return Fleet(call.manager.client)


def _asked(ask: Callable[[], T]) -> T:
    """Return what the fleet answers; its refusals are conflicts."""
    try:
        return ask()
    except FleetRefused as exc:
        raise Conflict(str(exc)) from exc
    except PermissionDenied as exc:
        raise HttpNotImplemented(f"the identity of this server is no admin of the fleet: {exc}") from exc


def _enrolment(token: TokenRecord) -> EnrolmentView:
    return EnrolmentView(
        id=token.id,
        name=token.name,
        fingerprint=token.fingerprint,
        requested_at=datetime.fromisoformat(token.requested_at),
        expires=datetime.fromtimestamp(token.expires, timezone.utc),
        labels=token.labels,
        role=token.role,
        decision=token.decision,  # type: ignore[arg-type]
    )


def _open_token(token: TokenRecord) -> OpenToken:
    return OpenToken(
        name=token.name,
        role=token.role,
        expires=datetime.fromtimestamp(token.expires, timezone.utc),
        approve=token.approve,
        labels=token.labels,
    )


def _identity(identity: Identity) -> IdentityView:
    return IdentityView(
        name=identity.name,
        role=identity.role,
        revoked=identity.revoked,
        labels=identity.labels,
        not_after=_time(identity.not_after),
        enrolled_at=_time(identity.enrolled_at),
        renewed_at=_time(identity.renewed_at),
        revoked_at=_time(identity.revoked_at),
        reason=identity.reason,
    )


def _time(text: str) -> datetime | UnsetType:
    return datetime.fromisoformat(text) if text else UNSET
