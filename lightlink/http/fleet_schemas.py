"""What requests and replies about a fleet are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import attrs
from msgspec import UNSET, Meta, UnsetType

Fingerprint = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{4}(:[0-9a-f]{4}){15}$",
        description="The SHA-256 of the machine's key, which the machine shows: hexadecimal in groups of four.",
    ),
]
IdentityName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=200, description="The name of an identity.")]


@attrs.frozen(kw_only=True)
class DecideRequest:
    """Which machine is decided about; ``name`` or ``id`` tell which, where one key is used for several."""

    fingerprint: Fingerprint
    name: Annotated[str, Meta(max_length=200, description="Whose request.")] = ""
    id: Annotated[str, Meta(max_length=64, description="Which request, as they are listed.")] = ""


@attrs.frozen(kw_only=True)
class MakeToken:
    """A token for one agent; ``urls`` are the servers it connects to, by default those of this server."""

    name: IdentityName
    hours: Annotated[float, Meta(gt=0, le=720, description="How long it can be used, once.")] = 1.0
    labels: dict[str, str] = attrs.Factory(dict)
    approve: Annotated[bool, Meta(description="Whether somebody must accept the machine's fingerprint.")] = False
    urls: Annotated[list[str], Meta(max_length=64)] = attrs.Factory(list)


@attrs.frozen(kw_only=True)
class RevokeIdentity:
    """Who is put out."""

    name: IdentityName
    reason: Annotated[str, Meta(max_length=1024)] = ""


@attrs.frozen(kw_only=True, slots=False)
class TokenMade:
    """The token, which is shown this once."""

    name: str
    token: str
    success: Literal[True] = True


@attrs.frozen(kw_only=True, slots=False)
class OpenToken:
    """A token that no machine has used yet."""

    name: str
    role: str
    expires: datetime
    approve: bool
    labels: dict[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True, slots=False)
class TokenList:
    """The tokens that can still be used, by name."""

    tokens: list[OpenToken]
    success: Literal[True] = True


@attrs.frozen(kw_only=True, slots=False)
class EnrolmentView:
    """A machine that has used its token, and what became of that."""

    id: str
    name: str
    fingerprint: str
    requested_at: datetime
    expires: datetime
    labels: dict[str, str] = attrs.Factory(dict)
    role: str = "agent"
    decision: Literal["", "accepted", "rejected"] = ""


@attrs.frozen(kw_only=True, slots=False)
class EnrolmentList:
    """The machines that wait for somebody to accept or reject them."""

    requests: list[EnrolmentView]
    success: Literal[True] = True


@attrs.frozen(kw_only=True, slots=False)
class OneEnrolment:
    """A machine, as it was decided."""

    request: EnrolmentView
    success: Literal[True] = True


@attrs.frozen(kw_only=True, slots=False)
class IdentityView:
    """Somebody who was enrolled, renewed or revoked; what does not apply is left out."""

    name: str
    role: str
    revoked: bool
    labels: dict[str, str] = attrs.Factory(dict)
    not_after: datetime | UnsetType = UNSET
    enrolled_at: datetime | UnsetType = UNSET
    renewed_at: datetime | UnsetType = UNSET
    revoked_at: datetime | UnsetType = UNSET
    reason: str = ""


@attrs.frozen(kw_only=True, slots=False)
class IdentityList:
    """Who is in the fleet, by name."""

    identities: list[IdentityView]
    success: Literal[True] = True


@attrs.frozen(kw_only=True, slots=False)
class Revoked:
    """An identity is out, and stays out until it is enrolled anew."""

    name: str
    success: Literal[True] = True
