"""What a fleet remembers, in buckets of the account AUTH: who is in it, and which tokens were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lightlink.concurrency.threads import Lock
from lightlink.errors import RevisionConflict, StateNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.client import Client
    from lightlink.state import StateBucket, StateChange

IDENTITIES = "fleet_identities"
TOKENS = "fleet_tokens"

# The one before the certificate that is on its way may be any: it was issued outside of the fleet.
ANY_SERIAL = "*"
_TOKEN_DAYS = 30
_ATTEMPTS = 20


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One identity: which of its certificates counts, and whether any does. Times are RFC 3339, serials hexadecimal.

    ``previous`` is the certificate before, which counts until the new one has been seen; so do those that are
    ``unseen``, signed for other requests to renew it, of which one may have been answered late. An identity whose
    certificate was made outside of the fleet has none of them until it is renewed.
    """

    name: str
    role: str = "agent"
    serial: str = ""
    previous: str = ""
    unseen: list[str] = []
    not_after: str = ""
    labels: dict[str, str] = {}
    enrolled_at: str = ""
    renewed_at: str = ""
    token: str = ""
    revoked_at: str = ""
    reason: str = ""

    @property
    def revoked(self) -> bool:
        """Whether it was put out."""
        return bool(self.revoked_at)

    @property
    def newest(self) -> list[str]:
        """The certificate that was signed last, and the others of which none has been seen."""
        return [self.serial, *self.unseen]


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token is good for, and what was made of it; ``id`` is the serial of its certificate.

    ``rights`` are what ``role`` may do, as `CertificateAuthority.issue` takes it; None is the role's own choice.
    ``fingerprint`` is that of the key that has used it (the machine's, SHA-256), ``decision`` ``accepted`` or
    ``rejected`` where one is asked for. ``certificate`` is what was signed for that key, with its chain: it gets the
    same again, whichever responder it asks. Times are RFC 3339, ``expires`` is in seconds since 1970.
    """

    id: str
    name: str
    expires: float
    role: str = "agent"
    rights: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    approve: bool = False
    fingerprint: str = ""
    requested_at: str = ""
    decision: str = ""
    made_at: str = ""
    certificate: str = ""

    @property
    def pending(self) -> bool:
        """Whether a machine waits for somebody to decide."""
        return self.approve and bool(self.fingerprint) and not self.decision


class Identities:
    """The identities, followed and read from memory.

    ``on_revoked(name)`` is called for each that another responder revokes.
    """

    def __init__(self, client: Client, on_revoked: Callable[[str], object], *, replicas: int = 1) -> None:
        self._bucket: StateBucket[Identity] = client.state(
            IDENTITIES, value_type=Identity, replicas=replicas, history=8
        )
        self._on_revoked = on_revoked
        self._lock = Lock()
        self._known: dict[str, tuple[Identity, int]] = {}
        self._watch = self._bucket.watch(">", self._follow)

    def wait_current(self, timeout: float) -> bool:
        """Wait until everything stored is known, at most ``timeout`` seconds; tell whether it is."""
        return self._watch.wait_current(timeout)

    def stop(self) -> None:
        """Follow no more."""
        self._watch.stop()

    def get(self, name: str) -> Identity | None:
        """Return what is known of an identity."""
        known = self._known.get(name)
        return None if known is None else known[0]

    def all(self) -> list[Identity]:
        """Return all identities that are known, by name."""
        with self._lock:
            found = [identity for identity, _ in self._known.values()]
        return sorted(found, key=lambda each: each.name)

    def change(self, name: str, function: Callable[[Identity | None], Identity]) -> tuple[Identity, bool]:
        """Store what ``function`` makes of an identity as it is stored; it may raise to leave it as it is.

        Return the identity, and whether that was stored: it is not when nothing changes.
        """
        for _ in range(_ATTEMPTS):
            try:
                entry = self._bucket.entry(name)
                current, revision = entry.value, entry.revision
            except StateNotFound:
                current, revision = None, 0
            changed = function(current)
            if changed == current:
                return changed, False
            try:
                if revision:
                    revision = self._bucket.update(name, changed, revision=revision)
                else:
                    revision = self._bucket.create(name, changed)
            except RevisionConflict:
                continue  # another responder was quicker
            self._note(changed, revision)
            return changed, True
        raise RevisionConflict(IDENTITIES, name, revision)

    def _follow(self, change: StateChange[Identity]) -> None:
        if change.value is not None and self._note(change.value, change.revision):
            self._on_revoked(change.value.name)

    def _note(self, identity: Identity, revision: int) -> bool:
        """Take note of an identity; tell whether it is revoked by it."""
        with self._lock:
            before, known = self._known.get(identity.name, (None, 0))
            if revision <= known:
                return False  # our own write was quicker than the news of an older one
            self._known[identity.name] = (identity, revision)
        return identity.revoked and (before is None or not before.revoked)


class Tokens:
    """The tokens that were made, for as long as anybody may ask about them."""

    def __init__(self, client: Client, *, replicas: int = 1) -> None:
        self._bucket: StateBucket[TokenRecord] = client.state(
            TOKENS, value_type=TokenRecord, replicas=replicas, ttl=_TOKEN_DAYS * 86_400.0
        )

    def add(self, token: TokenRecord) -> None:
        """Store a token that was made."""
        self._bucket.create(token.id, token)

    def get(self, token_id: str) -> tuple[TokenRecord, int] | None:
        """Return a token and its revision, None if it was never made or is long gone."""
        try:
            entry = self._bucket.entry(token_id)
        except StateNotFound:
            return None
        return entry.value, entry.revision

    def update(self, token: TokenRecord, revision: int) -> int:
        """Store a token that was read at a revision; raises RevisionConflict when it has changed since."""
        return self._bucket.update(token.id, token, revision=revision)

    def all(self) -> list[TokenRecord]:
        """Return every token there is, by name."""
        with self._bucket.watch(">") as watch:
            found = [change.value for change in watch.current() if change.value is not None]
        return sorted(found, key=lambda each: (each.name, each.id))
