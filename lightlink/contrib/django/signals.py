"""Signals of the outbox and of dead letters.

``event_relayed``: an event of the outbox is in its stream; ``event_refused``: it is not, for the reason ``error``, and
is tried again. Both are sent by `OutboxEvent` with its ``id`` and ``subject``, and with ``using``, the database, by the
process that relays, once the outcome is committed.

``dead_letter_stored``: an event that a `Service` consumes could not be handled, and is a dead letter now. Sent by
`DeadLetter` with ``message`` (a `StoredMessage`), the name of the ``consumer`` and the ``error``, by the process that
consumes; again if that dies before the stream knows.

A receiver that fails is logged, and holds nothing up.
"""

from __future__ import annotations

from django.dispatch import Signal

event_relayed = Signal()
event_refused = Signal()
dead_letter_stored = Signal()
