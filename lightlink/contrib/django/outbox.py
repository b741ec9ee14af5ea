"""Events in the caller's own transaction: they go out if it is committed, whoever dies; and each is handled once."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from lightlink.contrib.django import signals
from lightlink.contrib.outbox import OutboxRelay, OutboxRow, TwoSteps, in_turn, inbox_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lightlink.client import Client
    from lightlink.contrib.outbox import Outcomes, Send
    from lightlink.streams.message import StoredMessage

# The relays of this process, by database: they are nudged when something is committed.
_relays: dict[str, OutboxRelay] = {}


def publish_on_commit(
    subject: str,
    data: Any = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    using: str = "default",
) -> str:
    """Write an event into the outbox, in the transaction that is open, and return its id.

    It goes out if that is committed, once ``manage.py lightlink_outbox`` or `relay` is there to relay it: stored under
    its id, by which its stream knows it if it should go out twice. Events of one ``key`` keep their order. Raises
    InvalidName, EncodeError.
    """
    from lightlink.contrib.django.models import OutboxEvent  # noqa: PLC0415 - not before Django's apps are ready

    row = OutboxRow.of(subject, data, key, headers)
    OutboxEvent.objects.using(using).create(
        id=row.id, key=key, subject=subject, data=row.data, headers=row.headers_text
    )
    transaction.on_commit(partial(_nudge, using), using=using)
    return row.id


def is_new(message: StoredMessage, consumer: str, *, using: str = "default") -> bool:
    """Note, in the transaction that is open, that a consumer handles an event; tell whether it never did before.

    What the transaction writes beside it is written once, however often the event comes. Raises Django's
    TransactionManagementError where none is open: what fails after the note would never be handled.
    """
    from lightlink.contrib.django.models import InboxEvent  # noqa: PLC0415

    if connections[using].get_autocommit():
        raise transaction.TransactionManagementError(
            f"is_new needs an open transaction on {using!r}: use transaction.atomic() or ATOMIC_HANDLERS"
        )
    try:
        with transaction.atomic(using=using):
            InboxEvent.objects.using(using).create(**inbox_key(message, consumer))
    except IntegrityError:
        return False
    return True


def forget(older_than: float = 7 * 86_400.0, *, using: str = "default") -> int:
    """Forget what was handled more than ``older_than`` seconds ago, and return how many events that were."""
    from lightlink.contrib.django.models import InboxEvent  # noqa: PLC0415

    before = timezone.now() - timedelta(seconds=older_than)
    return int(InboxEvent.objects.using(using).filter(handled_at__lt=before).delete()[0])


def relay(client: Client, *, using: str = "default", **options: Any) -> OutboxRelay:
    """Return what relays the outbox of a database over a client, not started; see `OutboxRelay`.

    In the process that writes it is nudged by each commit.
    """
    made = _relays[using] = OutboxRelay(_Store(using), client, **options)
    return made


def _nudge(using: str) -> None:
    found = _relays.get(using)
    if found is not None:
        found.nudge()


def _tell(row: OutboxRow, error: str | None, using: str) -> None:
    from lightlink.contrib.django.models import OutboxEvent  # noqa: PLC0415

    told = {"id": row.id, "subject": row.subject, "using": using}
    if error is None:
        signals.event_relayed.send_robust(OutboxEvent, **told)
    else:
        signals.event_refused.send_robust(OutboxEvent, **told, error=error)


class _Store:
    def __init__(self, using: str) -> None:
        self._using = using
        self._two_steps = TwoSteps(self._lock, self._finish)

    def take(self, most: int, send: Send) -> int:
        connections[self._using].close_if_unusable_or_obsolete()
        if not connections[self._using].features.has_select_for_update:
            return self._two_steps.take(most, send)
        with transaction.atomic(using=self._using):
            rows = self._lock(most)
            return self._settle(rows, send(rows) if rows else {})

    def close(self) -> None:
        connections[self._using].close()

    def _lock(self, most: int) -> list[OutboxRow]:
        """Return the first event of each key that nobody else has, and those behind it, but for what rests."""
        from lightlink.contrib.django.models import OutboxEvent  # noqa: PLC0415

        events = OutboxEvent.objects.using(self._using)
        now = timezone.now()
        earlier = events.filter(key=OuterRef("key"), position__lt=OuterRef("position"))
        awake = events.exclude(attempts__gt=0, due_at__gt=now)
        may_skip = connections[self._using].features.has_select_for_update_skip_locked
        first = awake.filter(Q(key__isnull=True) | ~Exists(earlier)).select_for_update(skip_locked=may_skip)
        found = list(first[:most])
        keys = {each.key for each in found if each.key is not None}
        if keys and len(found) < most:
            # Nobody else takes these: the first of their keys is locked.
            behind = events.filter(key__in=keys).exclude(position__in=[each.position for each in found])
            found += behind[: most - len(found)]
        return in_turn(_row(each, now) for each in sorted(found, key=lambda each: each.position))

    def _finish(self, rows: list[OutboxRow], outcomes: Outcomes) -> int:
        from lightlink.contrib.django.models import OutboxEvent  # noqa: PLC0415

        events = OutboxEvent.objects.using(self._using)
        with transaction.atomic(using=self._using):
            # Changing nothing locks the database: what is read next stays so.
            events.filter(id="").update(attempts=0)
            there = {*events.filter(id__in=[row.id for row in rows]).values_list("id", flat=True)}
            return self._settle([row for row in rows if row.id in there], outcomes)

    def _settle(self, rows: list[OutboxRow], outcomes: Outcomes) -> int:
        from lightlink.contrib.django.models import OutboxEvent  # noqa: PLC0415

        events = OutboxEvent.objects.using(self._using)
        done = [row.id for row in rows if row.id in outcomes and outcomes[row.id] is None]
        events.filter(id__in=done).delete()
        for row in rows:
            error = outcomes.get(row.id)
            if row.id in outcomes:
                # After the commit, and robust: a receiver that fails holds nothing up.
                transaction.on_commit(partial(_tell, row, error, self._using), using=self._using, robust=True)
            if error is not None:
                due_at = timezone.now() + timedelta(seconds=row.delay())
                events.filter(id=row.id).update(attempts=row.attempts + 1, error=error, due_at=due_at)
        return len(done)


def _row(found: Any, now: datetime) -> OutboxRow:
    return OutboxRow(
        found.id,
        found.key,
        found.subject,
        bytes(found.data),
        json.loads(found.headers),
        attempts=found.attempts,
        is_resting=found.attempts > 0 and found.due_at > now,
    )
