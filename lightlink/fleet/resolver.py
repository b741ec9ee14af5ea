"""What responders tell the servers over the system account: agents' accounts, and whose connections end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.threads import Lock
from lightlink.connection.connection import NoReply
from lightlink.errors import FleetError, NoMessage
from lightlink.fleet import accounts, jwt
from lightlink.protocol import codec
from lightlink.protocol.ids import new_inbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightlink.client import Client
    from lightlink.fleet.directory import Secrets

_TIMEOUT = 5.0
# How long servers other than the first are waited for.
_OTHERS_SECONDS = 0.5
# An agent that is back so soon may have been refused because the account is not there: it is pushed again.
_SOON_SECONDS = 5.0
_PAGE = 10_000


class Resolver:
    """Pushes accounts and ends connections, through a client of the system account."""

    def __init__(self, client: Client, secrets: Secrets) -> None:
        self._client = client
        self._connection = client.connection
        self._secrets = secrets
        self._lock = Lock()
        self._pushed: dict[str, float] = {}

    def push_agent(self, name: str) -> None:
        """See that the servers know the account of an agent; raises FleetError."""
        now = time.monotonic()
        with self._lock:
            known = now - self._pushed.get(name, now) > _SOON_SECONDS
            self._pushed[name] = now
        if known:
            return
        secrets = self._secrets
        public = secrets.agent_account(name).public
        claims = accounts.agent_claims(name, secrets.home.public, secrets.auth.public)
        token = jwt.account(public, f"agent-{name}", secrets.signing, **claims)
        try:
            self._ask(b"$SYS.REQ.CLAIMS.UPDATE", token.encode(), "pushing an account")
        except FleetError:
            with self._lock:
                self._pushed.pop(name, None)
            raise

    def put_out(self, names: Sequence[str]) -> int:
        """End every connection of some identities and forget their accounts; return how many shared one.

        Agents go with their account; others have one in common, where their connections are looked for.
        """
        if not names:
            return 0
        with self._lock:
            for name in names:
                self._pushed.pop(name, None)
        publics = [self._secrets.agent_account(name).public for name in names]
        order = jwt.accounts_to_delete(self._secrets.signing.public, publics, self._secrets.signing)
        self._ask(b"$SYS.REQ.CLAIMS.DELETE", order.encode(), "deleting accounts")
        return self.kick(self._secrets.home.public, names)

    def kick(self, account: str, names: Sequence[str]) -> int:
        """End the connections that some identities have in an account, on every server; return how many."""
        wanted = frozenset(names)
        kicked = 0
        for server, connection in self._connections(account):
            if connection.get("authorized_user") in wanted:
                body = codec.encode_json({"cid": connection["cid"]})
                kicked += 1
                with contextlib.suppress(FleetError):  # it has gone by itself
                    # The server does nothing for who wants no answer.
                    self._ask(f"$SYS.REQ.SERVER.{server}.KICK".encode(), body, "ending a connection")
        return kicked

    def _connections(self, account: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the connections of an account on all servers, with the id of their server."""
        offset, more = 0, True
        while more:
            body = codec.encode_json({"auth": True, "acc": account, "limit": _PAGE, "offset": offset})
            more = False
            for answer in self._ask_all(b"$SYS.REQ.SERVER.PING.CONNZ", body):
                data = answer.get("data") or {}
                found = data.get("connections") or []
                more = more or data.get("total", 0) > offset + len(found) > offset
                for connection in found:
                    yield answer["server"]["id"], connection
            offset += _PAGE

    def _ask(self, subject: bytes, body: bytes, operation: str) -> None:
        """Ask something of the servers; the first that has done it is enough, the others hear it too."""
        try:
            waiter = self._connection.request(subject, body, _TIMEOUT)
        except NoReply as exc:
            raise FleetError(operation, f"no server answered within {_TIMEOUT:g} s") from exc
        answer = codec.decode(waiter.data, subject.decode(), dict[str, Any])
        if "error" in answer:
            raise FleetError(operation, str(answer["error"].get("description", answer["error"])))

    def _ask_all(self, subject: bytes, body: bytes) -> Iterator[dict[str, Any]]:
        """Ask every server, and yield their answers for as long as they come close together."""
        inbox = new_inbox(self._client.options.inbox_prefix) + "x"
        with self._client.subscribe(inbox, raw=True) as answers:
            self._connection.publish(subject, body, inbox.encode())
            limit = _TIMEOUT
            while True:
                try:
                    message = answers.get(limit)
                except NoMessage:
                    return
                yield codec.decode(message.data, subject.decode(), dict[str, Any])
                limit = _OTHERS_SECONDS
