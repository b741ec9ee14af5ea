"""Signals of the outbox, sent by the process that relays it once the outcome is committed.

``event_relayed``: an event is in its stream; ``event_refused``: it is not, for the reason ``error``, and is tried
again. Both are sent by `OutboxEvent` with its ``id`` and ``subject``, and with ``using``, the database.
"""

from __future__ import annotations

from django.dispatch import Signal

event_relayed = Signal()
event_refused = Signal()
