"""The fleet as admins see it: every operation is a request to the responders, from anywhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.queues import Results
from lightlink.connection.connection import NoReply
from lightlink.errors import FleetError, FleetRefused, LightLinkError
from lightlink.fleet.audit import Entry
from lightlink.fleet.records import Identity, TokenRecord
from lightlink.protocol import codec
from lightlink.protocol.subjects import AGENTS_BUCKET, FLEET_BUCKET, FLEET_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeVar

    from lightlink.client import Client
    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import Waiter

    T = TypeVar("T")

_log = logging.getLogger("lightlink")

# Operations that would make something twice, or be told that somebody has decided.
_ONCE = frozenset({"token", "decide", "renewal"})
_AGAIN_SECONDS = 1.0


class Fleet:
    """The operations of a fleet, through the client of an admin.

    Each takes at most the client's ``timeout``; raises FleetRefused when the fleet says no, FleetError when no
    responder answers or it cannot do it now, PermissionDenied for who is no admin.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connection = client.connection

    def token(
        self,
        name: str,
        *,
        role: str = "agent",
        rights: Mapping[str, Sequence[str]] | None = None,
        hours: float = 1.0,
        labels: Mapping[str, str] | None = None,
        approve: bool = False,
        urls: Sequence[str] = (),
        by: str = "",
    ) -> str:
        """Return a token, good once within ``hours``, with which the machine ``name`` enrolls.

        ``role`` is agent, service, client or manager; ``rights`` what it may do in it, as lists of what
        `CertificateAuthority.issue` takes: ``{"calls": ["math"]}``. ``labels`` are the agent's. With
        ``approve`` it gets its certificate when somebody has accepted its fingerprint. ``urls`` are the
        servers for the machine; by default those that this client is given. ``by`` is who has asked, for the
        audit; so it is with `accept`, `reject` and `revoke`.
        """
        body = {
            "name": name,
            "role": role,
            "rights": {option: [*values] for option, values in (rights or {}).items()},
            "hours": hours,
            "labels": dict(labels or {}),
            "approve": approve,
            "urls": [*(urls or self._connection.options.servers)],
            "by": by,
        }
        token: str = self._ask("token", body)["token"]
        return token

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens that no machine has used yet and whose time is not over, by name; not their texts."""
        return self._list("tokens", TokenRecord)

    def pending(self) -> list[TokenRecord]:
        """Return the requests that wait for somebody to decide about their fingerprint, while their token is good."""
        return self._list("pending", TokenRecord)

    def accept(self, fingerprint: str, *, name: str = "", token: str = "", by: str = "") -> TokenRecord:
        """Let a machine have its certificate; compare the fingerprint with what it shows.

        ``name`` is whose certificate that is, ``token`` the id of the token that was used: a key may be used with
        several tokens, and of several requests with one fingerprint none is decided unless one of these tells which.
        """
        return self._decide(fingerprint, "accepted", name, token, by)

    def reject(self, fingerprint: str, *, name: str = "", token: str = "", by: str = "") -> TokenRecord:
        """Refuse a machine its certificate; ``name`` and ``token`` are as in `accept`."""
        return self._decide(fingerprint, "rejected", name, token, by)

    def revoke(self, name: str, reason: str = "", *, by: str = "") -> None:
        """Put an identity out, and keep it out until it is enrolled anew. Labels reach it no more."""
        self._ask("revoke", {"name": name, "reason": reason, "by": by})
        # It could not say goodbye, and would count as online for three heartbeats more.
        for bucket, key in ((AGENTS_BUCKET, name), (FLEET_BUCKET, f"agent.{name}")):
            try:
                self._client.state(bucket).delete(key)
            except LightLinkError as exc:  # where there are no commands, there is nothing to forget
                _log.debug("lightlink fleet: %s stays in %s: %s", name, bucket, exc)

    def identities(self) -> list[Identity]:
        """Return who has been enrolled, renewed or revoked, by name."""
        return self._list("list", Identity)

    def audit(self, limit: int = 100) -> list[Entry]:
        """Return the last events of the fleet, oldest first."""
        # Some may have been added while it was read.
        return self._list("audit", Entry, limit=limit)[-limit:]

    def status(self) -> dict[str, Any]:
        """Return the health of one responder."""
        status: dict[str, Any] = self._ask("status")
        return status

    def _decide(self, fingerprint: str, decision: str, name: str, token: str, by: str) -> TokenRecord:
        body = {"fingerprint": fingerprint, "decision": decision, "name": name, "token": token, "by": by}
        return msgspec.convert(self._ask("decide", body), TokenRecord)

    def _list(self, operation: str, kind: type[T], **body: Any) -> list[T]:
        """Return all that an operation lists, as much at a time as fits into a message."""
        found: list[T] = []
        after = ""
        while True:
            answer = self._ask(operation, {**body, "after": after})
            found += [msgspec.convert(each, kind) for each in answer["found"]]
            after = answer["after"]
            if not after:
                return found

    def _ask(self, operation: str, body: Mapping[str, Any] | None = None) -> Any:
        return ask(self._connection, f"{FLEET_OPERATIONS}.{operation}", body or {}, operation)


def ask(connection: Connection, subject: str, body: Mapping[str, Any], operation: str) -> Any:
    """Return the result of a request to the responders; raises FleetRefused, FleetError, PermissionDenied.

    What may be done twice is asked for once more each second: one of several responders may hang.
    """
    timeout = connection.options.timeout
    payload = codec.encode_json(dict(body))
    try:
        if operation in _ONCE:
            waiter = connection.request(subject.encode(), payload, timeout)
        else:
            waiter = _request_again(connection, subject.encode(), payload, timeout)
    except NoReply as exc:
        raise FleetError(operation, f"no responder answered within {timeout:g} s (lightlink fleet auth)") from exc
    if codec.is_no_responders(waiter.data, waiter.headers):
        raise FleetError(operation, "no responder is there (lightlink fleet auth)")
    answer = codec.decode(waiter.data, subject, dict[str, Any])
    if "error" not in answer:
        return answer.get("result")
    code = str(answer.get("code", ""))
    if code == "unavailable":
        raise FleetError(operation, str(answer["error"]))
    raise FleetRefused(operation, str(answer["error"]), code)


def _request_again(connection: Connection, subject: bytes, payload: bytes, timeout: float) -> Waiter:
    """Send a request each second until the first answer; raises NoReply after ``timeout`` seconds."""
    deadline = Deadline(timeout)
    answers: Results[Waiter] = Results()
    while not deadline.is_over:
        connection.request_async(subject, payload, deadline.remaining(), answers.put)
        try:
            waiter = answers.get(min(_AGAIN_SECONDS, deadline.remaining()))
        except TimeoutError:
            continue
        if waiter.error is not None:
            raise waiter.error
        return waiter
    raise NoReply(subject.decode(), timeout, True)
