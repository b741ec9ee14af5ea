"""The accounts of a fleet and what crosses the walls between them.

LIGHTLINK holds the streams, managers and services. Each agent has an account of its own, for the reason
`lightlink.certs.config` gives, that imports the subjects of its role. AUTH is the responders': it decides who gets in
and keeps the fleet's records, out of everybody's reach; what others may ask it is imported below ``ll.fleet``. Machines
that enroll are in ENROLL, where there is nothing but that question. SYS is the server's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.protocol.permissions import ROLES, Permissions, inbox_prefix, permissions
from lightlink.protocol.subjects import CONSUMER_NEXT, FLEET, FLEET_ENROLL, FLEET_OPERATIONS, FLEET_RENEW

if TYPE_CHECKING:
    from lightlink.protocol.permissions import Grant


def home_claims(auth: str) -> dict[str, Any]:
    """Return what LIGHTLINK exports to agents, all of them at once, and imports: what is asked of the fleet."""
    exports = [_export(kind, _for_all(subject)) for kind, subject in _crossings() if not subject.startswith(FLEET)]
    imports = [_import("service", subject, auth) for subject in (f"{FLEET_OPERATIONS}.>", f"{FLEET_RENEW}.*")]
    return {"exports": exports, "imports": imports}


def auth_claims(responder: str) -> dict[str, Any]:
    """Return what AUTH exports, and that its user ``responder`` answers for who connects without one (ADR-26)."""
    asked = (f"{FLEET_OPERATIONS}.>", f"{FLEET_RENEW}.*", f"{FLEET_ENROLL}.*.*")
    return {
        "exports": [_export("service", subject) for subject in asked],
        "authorization": {"auth_users": [responder], "allowed_accounts": ["*"]},
    }


def enroll_claims(auth: str) -> dict[str, Any]:
    """Return the one import of ENROLL."""
    return {"imports": [_import("service", f"{FLEET_ENROLL}.*.*", auth)]}


def agent_claims(name: str, home: str, auth: str) -> dict[str, Any]:
    """Return what an agent's account imports: the subjects of its role, for its name."""
    imports = []
    for kind, template in _crossings():
        subject = template.replace("{name}", name)
        imports.append(_import(kind, subject, auth if subject.startswith(FLEET) else home))
    return {"imports": imports}


def allowed(name: str, grant: Grant) -> Permissions:
    """Return what an identity may do in its account: what its grant says, and have its certificate renewed."""
    allowed = permissions(name, grant)
    renewal = f"{FLEET_RENEW}.{name}"
    if renewal in allowed.publish or "." in name:
        return allowed
    return Permissions((*allowed.publish, renewal), allowed.subscribe)


def allowed_to_enroll(name: str, token: str) -> Permissions:
    """Return what the holder of a token may do: ask for a certificate, for one name and by one token."""
    return Permissions((f"{FLEET_ENROLL}.{name}.{token}",), (f"{inbox_prefix(enrolling_name(name))}.>",))


def enrolling_name(name: str) -> str:
    """Return the name in a token's certificate: one that no identity can have."""
    return f"_enroll.{name}"


def _crossings() -> list[tuple[str, str]]:
    """Return what crosses the wall of an agent: service or stream, and the subject with ``{name}`` in it."""
    role = ROLES["agent"]
    streams = [("stream", subject) for subject in role.subscribe if not subject.startswith("{inbox}")]
    return [("service", subject) for subject in role.publish] + streams


def _for_all(template: str) -> str:
    return ".".join("*" if "{name}" in token else token for token in template.split("."))


def _export(kind: str, subject: str) -> dict[str, Any]:
    streamed = {"response_type": "Stream"} if subject.startswith(CONSUMER_NEXT) else {}
    return {"name": subject, "subject": subject, "type": kind, **streamed}


def _import(kind: str, subject: str, account: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "account": account, "type": kind}
