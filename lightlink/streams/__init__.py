"""Durable events: stored when they are published, handled at least once, retried, dead-lettered, replayed.

`consumption` hands events to handlers, `outcomes` decides what is tried again and what is parked; `graveyard` stores
dead letters, `dead` lists and redelivers them; `hand` is a consumer without a handler.
"""

from lightlink.streams.consumption import Consumption
from lightlink.streams.dead import DeadLetter, DeadLetters
from lightlink.streams.durable import Lag
from lightlink.streams.hand import Consumer, HeldMessage
from lightlink.streams.message import StoredMessage
from lightlink.streams.publish import Stored, Storing
from lightlink.streams.stream import Stream, StreamInfo

__all__ = [
    "Consumer",
    "Consumption",
    "DeadLetter",
    "DeadLetters",
    "HeldMessage",
    "Lag",
    "Stored",
    "StoredMessage",
    "Storing",
    "Stream",
    "StreamInfo",
]
