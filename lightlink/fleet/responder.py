"""A responder of a fleet: lets identities in, enrolls machines, renews certificates, and puts out who is revoked.

Any number of them share the work in a queue group; none holds the only copy of anything.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from lightlink.client import Client, connect
from lightlink.concurrency.lifecycle import Lifecycle, Stage
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.threads import Lock
from lightlink.errors import DecodeError, FleetRefused, InvalidName, InvalidOption, LightLinkError, NotReady
from lightlink.events.message import Message
from lightlink.fleet import jwt
from lightlink.fleet.audit import Audit
from lightlink.fleet.directory import ResponderFiles
from lightlink.fleet.gate import Gate
from lightlink.fleet.operations import Operations
from lightlink.fleet.records import Identities, Tokens
from lightlink.fleet.resolver import Resolver
from lightlink.fleet.signer import CERTIFICATE_DAYS, Signer
from lightlink.protocol import codec
from lightlink.protocol.subjects import FLEET_ENROLL, FLEET_OPERATIONS, FLEET_RENEW
from lightlink.service.service import Service
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.fleet.gate import Entrant

_log = logging.getLogger("lightlink")

USER_SECONDS = 3600.0
_CALLOUT = "$SYS.REQ.USER.AUTH"
_QUEUE = "fleet"
# So many are let in at the same time: most of it is waiting for an account to be pushed.
_CONCURRENCY = 8
_START_SECONDS = 30.0
# How often it is tried again to put out who could not be: a server was away, say.
_AGAIN_SECONDS = 5.0
# A refusal is in the audit once in so many seconds: who is refused comes again all the time.
_AUDIT_AGAIN_SECONDS = 600.0
_AUDIT_REMEMBERED = 10_000


class Responder(Lifecycle):
    """One responder, with the files in ``directory`` (a fleet's, or its folder ``responder``), at the server ``url``.

    ``life`` is how many seconds a user lasts before it is asked for again, ``days`` how long agents' certificates are
    valid. ``replicas`` counts when the fleet's buckets are made. A context manager, or `run` it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        url: str | Sequence[str] | None = None,
        *,
        life: float = USER_SECONDS,
        days: int = CERTIFICATE_DAYS,
        replicas: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        self._files = ResponderFiles.load(directory)
        self._url = url
        self._life = seconds("life", life)
        self._days = days
        self._replicas = replicas
        self._options = options
        self._clients: list[Client] = []
        self._service: Service | None = None
        self._identities: Identities | None = None
        self._refusals = _Refusals()
        self._lock = Lock()
        self._still_in: set[str] = set()  # who is revoked, and could not be put out yet
        self._periodic: PeriodicJob | None = None
        self._counts = {"admitted": 0, "refused": 0, "failed": 0}

    @property
    def service(self) -> Service:
        """The service ``fleet`` in the account AUTH, which discovery and metrics see; NotReady before the start."""
        if self._service is None:
            raise NotReady("the responder", "does not run")
        return self._service

    @property
    def client(self) -> Client:
        """The client in the account AUTH; raises NotReady before the start."""
        if not self._clients:
            raise NotReady("the responder", "has no client before it is started")
        return self._clients[0]

    def start(self) -> Self:
        """Connect, learn who is revoked, and begin to answer; returns self.

        Raises ConnectError, StateError and what JetStream refuses; NotReady after the first start.
        """
        if self.stage is not Stage.NEW:
            raise NotReady("the responder", f"is {self.stage.value} already")
        self._stage, self._pid = Stage.STARTING, os.getpid()
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise
        self._stage = Stage.RUNNING
        return self

    def _begin(self) -> None:
        secrets = self._files.secrets()
        auth, system = self._connect("auth"), self._connect("system")
        self._resolver = Resolver(system, secrets)
        self._audit = Audit(auth.connection, replicas=self._replicas)
        self._identities = identities = Identities(auth, self._put_out, replicas=self._replicas)
        if not identities.wait_current(_START_SECONDS):
            raise NotReady("the responder", "could not read who is in the fleet in time")
        self._periodic = every(_AGAIN_SECONDS, self._put_out_again)
        # A responder may have died between noting it and telling the server.
        self._resolver.put_out([each.name for each in identities.all() if each.revoked])
        self._gate = Gate(secrets, identities.get, self._life)
        tokens = Tokens(auth, replicas=self._replicas)
        self._signer = Signer(self._files, identities, tokens, self._audit, auth.connection.clock, self._days)
        half = auth.connection.max_payload // 2
        operations = Operations(self._signer, identities, tokens, self._audit, self._see_out, self.health, half)
        self._service = service = Service(_QUEUE, auth, description="lets identities into the fleet")
        service.register("health", self.health)
        service.start()
        self._answer(auth, f"{FLEET_OPERATIONS}.*", operations.answer)
        self._answer(auth, f"{FLEET_RENEW}.*", self._renew)
        self._answer(auth, f"{FLEET_ENROLL}.*.*", self._enroll)
        auth.subscribe(_CALLOUT, self._admit(auth), queue=_QUEUE, raw=True, concurrency=_CONCURRENCY)
        auth.flush()

    def stop(self, timeout: float = 5.0) -> None:
        """Answer no more, finish what was begun, and leave. Idempotent."""
        self._stop_signal.set()
        if self.stage in (Stage.NEW, Stage.STOPPED):
            return
        self._stop_by(self._end, timeout)

    def _end(self, timeout: float) -> None:
        if self._periodic is not None:
            self._periodic.stop(timeout)
        if self._service is not None:
            self._service.stop(timeout)
        for client in self._clients:
            client.close(timeout)
        self._service, self._clients = None, []

    def health(self) -> dict[str, Any]:
        """Return what this responder has done and whether it can."""
        clients = {client.options.name: client.status.value for client in self._clients}
        return {"connections": clients, **self._counts, "still_in": sorted(self._still_in)}

    def _connect(self, account: str) -> Client:
        client = connect(
            self._url,
            name=f"fleet-{account}",
            tls=self._files.tls,
            creds=self._files.path / f"{account}.creds",
            **self._options,
        )
        self._clients.append(client)
        return client

    # Letting in -----------------------------------------------------------------------------------------------------

    def _admit(self, client: Client) -> Callable[[Message], None]:
        secrets = self._files.secrets()

        def admit(message: Message) -> None:
            claims = jwt.decode(message.data)
            request = claims["nats"]
            try:
                entrant = self._gate.decide(request, float(claims["iat"]))
                if entrant.role == "agent":
                    self._resolver.push_agent(entrant.name)
                answer = jwt.auth_response(request, secrets.auth, granted=entrant.token)
            except FleetRefused as exc:
                self._note_refusal(request, exc)
                answer = jwt.auth_response(request, secrets.auth, error=exc.reason)
            except Exception:
                # No answer: the client comes again, and is not refused for a fault of ours.
                self._count("failed")
                _log.exception("lightlink fleet: a request could not be decided")
                return
            else:
                self._count("admitted")
                self._note_entrant(entrant)
            client.connection.publish(message.reply.encode(), answer.encode())

        return admit

    def _note_entrant(self, entrant: Entrant) -> None:
        if entrant.confirms:
            self._signer.confirm(entrant.name, entrant.serial)

    def _note_refusal(self, request: dict[str, Any], refusal: FleetRefused) -> None:
        self._count("refused")
        client = request.get("client_info") or {}
        host = str(client.get("host", ""))
        if self._refusals.is_news(refusal.reason, refusal.code):
            self._audit.note("refused", str(client.get("name", "")), refusal.reason, code=refusal.code, host=host)

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def _put_out(self, name: str) -> None:
        """End the connections of an identity that was revoked, here or by another responder; until that is done."""
        try:
            self._see_out(name)
        except LightLinkError as exc:
            _log.error("lightlink fleet: %s could not be put out, and is tried again: %s", name, exc)

    def _see_out(self, name: str) -> None:
        """End the connections of an identity; one that cannot be put out now is noted. Raises FleetError."""
        with self._lock:
            self._still_in.add(name)
        identity = self._identities.get(name) if self._identities is not None else None
        if identity is None or identity.revoked:  # else it was let in again meanwhile
            self._resolver.put_out([name])
        with self._lock:
            self._still_in.discard(name)

    def _put_out_again(self) -> None:
        for name in sorted(self._still_in):
            self._put_out(name)

    # Answering ------------------------------------------------------------------------------------------------------

    def _answer(self, client: Client, subject: str, function: Callable[[str, dict[str, Any]], Any]) -> None:
        """Answer requests on a subject with what ``function(subject, body)`` returns, or with why it is refused."""

        def answer(message: Message) -> None:
            reply: dict[str, Any]
            failure: LightLinkError | None = None
            try:
                body = codec.decode(message.data or b"{}", message.subject, dict[str, Any])
                reply = {"result": function(message.subject, body)}
            except FleetRefused as exc:
                reply = {"error": exc.reason, "code": exc.code}
                self._audit.note("refused", message.subject.split(".")[3], exc.reason, code=exc.code)
            except (DecodeError, InvalidName, InvalidOption) as exc:
                reply = {"error": str(exc), "code": "bad_request"}
                self._audit.note("refused", message.subject.split(".")[3], str(exc), code="bad_request")
            except LightLinkError as exc:
                reply, failure = {"error": str(exc), "code": "unavailable"}, exc
                _log.error("lightlink fleet: %s failed: %s", message.subject, exc)
            if message.reply:
                client.connection.publish(message.reply.encode(), codec.encode_json(reply))
            # Last: where the store is away, this waits for it.
            if failure is not None and self._refusals.is_news(f"{message.subject}: {failure}", "unavailable"):
                self._audit.note("failed", message.subject.split(".")[3], str(failure), code="unavailable")

        client.subscribe(subject, answer, queue=_QUEUE, raw=True, concurrency=2)

    def _enroll(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        name, token_id = subject.split(".")[3:5]
        return self._signer.enroll(name, token_id, body.get("csr"))

    def _renew(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._signer.renew(subject.split(".")[3], body.get("csr"), body.get("certificate"))


class _Refusals:
    """Tells whether a refusal was noted a while ago, so that one who comes again and again does not fill the audit."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._noted: dict[tuple[str, str], float] = {}

    def is_news(self, reason: str, code: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._noted.get((reason, code), -_AUDIT_AGAIN_SECONDS) < _AUDIT_AGAIN_SECONDS:
                return False
            if len(self._noted) >= _AUDIT_REMEMBERED:
                self._noted.clear()
            self._noted[(reason, code)] = now
            return True
